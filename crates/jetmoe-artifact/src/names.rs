//! Names of an artifact's files and of its graphs' inputs and outputs. Nothing else in the workspace spells them.

use std::fmt;
use std::str::FromStr;

use jetmoe_checkpoint::names as checkpoint_names;

use crate::{Error, Precision, Profile, Result};

/// The manifest.
pub const MANIFEST: &str = "jetmoe.json";
/// Configuration for onnxruntime-genai.
pub const GENAI_CONFIG: &str = "genai_config.json";
/// Files for other clients, which nothing here reads. Every other file beside the graphs is read when a model is loaded.
const FOR_OTHER_CLIENTS: [&str; 2] = [GENAI_CONFIG, checkpoint_names::SENTENCEPIECE_TOKENIZER];

/// Whether a file beside the graphs is read when a model is loaded, so that its content must be the one in the manifest.
pub fn is_read(file: &str) -> bool {
    !FOR_OTHER_CLIENTS.contains(&file)
}

/// Staging folder inside an artifact, where an export writes its files until all are complete. Its contents belong to a
/// running or interrupted export.
pub const UNFINISHED: &str = "export.partial";
/// Folder of the graphs.
pub const GRAPH_FOLDER: &str = "onnx";

/// Name of the batch dimension; transformers.js requires exactly this name.
pub const BATCH_SIZE: &str = "batch_size";
/// Name of the dimension of the new tokens.
pub const SEQUENCE_LENGTH: &str = "sequence_length";
/// Name of the dimension of the cached tokens.
pub const PAST_SEQUENCE_LENGTH: &str = "past_sequence_length";

/// Name of the dimension of the tokens whose logits are returned.
pub const LOGITS_LENGTH: &str = "logits_length";

/// Name of the dimension of the sequences that a step lists.
pub const SEQUENCE_COUNT: &str = "sequence_count";

/// Name of the dimension of the sequences of a cache, where a step may list some of them.
pub const CACHE_BATCH_SIZE: &str = "cache_batch_size";

/// Path of a graph inside the artifact, with `/`.
pub fn graph_file(profile: Profile, precision: Precision) -> String {
    let stem = match precision {
        Precision::F32 => "model",
        Precision::F16 => "model_fp16",
        Precision::Bf16 => "model_bf16",
        Precision::Int8 => "model_int8",
        Precision::Q4F16 => "model_q4f16",
        Precision::Q4 => "model_q4",
    };
    match profile {
        Profile::Portable => format!("{GRAPH_FOLDER}/{stem}.onnx"),
        Profile::OnnxRuntime | Profile::Gpu | Profile::Native => {
            format!("{GRAPH_FOLDER}/{profile}/{stem}.onnx")
        }
    }
}

/// Path of a graph's external data inside the artifact: the graph's own path followed by `_data`.
pub fn data_file(graph_file: &str) -> String {
    format!("{graph_file}_data")
}

/// Files that an export can write beside graphs and tokenizer.
const BESIDE_GRAPHS: [&str; 4] =
    [MANIFEST, GENAI_CONFIG, checkpoint_names::CONFIG, checkpoint_names::GENERATION_CONFIG];

/// Whether an export can write a file of this name, relative to the artifact and with `/`. Exports remove no other file.
pub fn is_written(file: &str) -> bool {
    let is_graph = || {
        Profile::ALL.iter().any(|profile| {
            let mut graphs = Precision::ALL.iter().map(|precision| graph_file(*profile, *precision));
            graphs.any(|graph| file == graph || file == data_file(&graph))
        })
    };
    BESIDE_GRAPHS.contains(&file)
        || checkpoint_names::TOKENIZER_FILES.contains(&file)
        || checkpoint_names::additional_chat_template(file).is_some()
        || is_graph()
}

/// Folders that an export can create in an artifact, relative to it and with `/`, inner ones before those around them.
pub fn written_folders() -> Vec<String> {
    let graphs = Profile::ALL.iter().map(|profile| graph_file(*profile, Precision::F32));
    let mut folders: Vec<String> =
        graphs.filter_map(|graph| Some(graph.rsplit_once('/')?.0.to_owned())).collect();
    folders.push(checkpoint_names::ADDITIONAL_CHAT_TEMPLATES.to_owned());
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.matches('/').count()));
    folders
}

/// An input of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputName {
    /// Token ids.
    InputIds,
    /// 1 for a token, 0 for padding; over cached and new tokens.
    AttentionMask,
    /// Position of each new token.
    PositionIds,
    /// Number of last tokens whose logits are returned; 0 for all.
    LogitsToKeep,
    /// The sequences that have the tokens, one after the other: row of the cache, cached and new tokens of each. With none the
    /// mask says which tokens are whose.
    Sequences,
    /// Cached keys of a layer.
    PastKey(usize),
    /// Cached values of a layer.
    PastValue(usize),
}

/// An output of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputName {
    /// Scores of the next token, or of the classes.
    Logits,
    /// Hidden state after the final norm.
    LastHiddenState,
    /// Keys of a layer, cached and new.
    PresentKey(usize),
    /// Values of a layer, cached and new.
    PresentValue(usize),
    /// Residual stream: 0 is the embedding, i the output of layer i − 1.
    HiddenState(usize),
    /// Logits of a layer's attention router.
    AttentionRouterLogits(usize),
    /// Logits of a layer's MLP router.
    MlpRouterLogits(usize),
    /// Numbers of the experts that a layer's attention router chose, the best first, followed by their gates. Only in a copy of
    /// a graph, see [`ObservedValue`](crate::ObservedValue).
    AttentionRouterChoice(usize),
    /// The same of a layer's MLP router.
    MlpRouterChoice(usize),
    /// What all layers add to the scores of attention: 0 where a query attends to a key. Only in a copy of a graph.
    AttentionBias,
    /// Weight of each key in an attention operator whose keys are all equal: 0 for a key that a query does not attend to. Only
    /// in a copy of a graph that updates the cache in place.
    AttendedKeys,
}

impl fmt::Display for InputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputName::InputIds => f.write_str("input_ids"),
            InputName::AttentionMask => f.write_str("attention_mask"),
            InputName::PositionIds => f.write_str("position_ids"),
            InputName::LogitsToKeep => f.write_str("logits_to_keep"),
            InputName::Sequences => f.write_str("sequences"),
            InputName::PastKey(layer) => write!(f, "past_key_values.{layer}.key"),
            InputName::PastValue(layer) => write!(f, "past_key_values.{layer}.value"),
        }
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputName::Logits => f.write_str("logits"),
            OutputName::LastHiddenState => f.write_str("last_hidden_state"),
            OutputName::PresentKey(layer) => write!(f, "present.{layer}.key"),
            OutputName::PresentValue(layer) => write!(f, "present.{layer}.value"),
            OutputName::HiddenState(index) => write!(f, "hidden_states.{index}"),
            OutputName::AttentionRouterLogits(layer) => write!(f, "attn_router_logits.{layer}"),
            OutputName::MlpRouterLogits(layer) => write!(f, "mlp_router_logits.{layer}"),
            OutputName::AttentionRouterChoice(layer) => write!(f, "attn_router_choice.{layer}"),
            OutputName::MlpRouterChoice(layer) => write!(f, "mlp_router_choice.{layer}"),
            OutputName::AttentionBias => f.write_str("attention_bias"),
            OutputName::AttendedKeys => f.write_str("attended_keys"),
        }
    }
}

impl InputName {
    /// Whether it is part of the cache: keys or values of a layer.
    pub fn is_cache(self) -> bool {
        matches!(self, InputName::PastKey(_) | InputName::PastValue(_))
    }
}

impl OutputName {
    /// Whether it is part of the cache: keys or values of a layer.
    pub fn is_cache(self) -> bool {
        matches!(self, OutputName::PresentKey(_) | OutputName::PresentValue(_))
    }

    /// The kind of this output over all layers: its name with `*` for the layer.
    pub fn family(self) -> &'static str {
        match self {
            OutputName::Logits => "logits",
            OutputName::LastHiddenState => "last_hidden_state",
            OutputName::PresentKey(_) => "present.*.key",
            OutputName::PresentValue(_) => "present.*.value",
            OutputName::HiddenState(_) => "hidden_states.*",
            OutputName::AttentionRouterLogits(_) => "attn_router_logits.*",
            OutputName::MlpRouterLogits(_) => "mlp_router_logits.*",
            OutputName::AttentionRouterChoice(_) => "attn_router_choice.*",
            OutputName::MlpRouterChoice(_) => "mlp_router_choice.*",
            OutputName::AttentionBias => "attention_bias",
            OutputName::AttendedKeys => "attended_keys",
        }
    }
}

impl FromStr for OutputName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::UnknownOutput { name: name.to_owned() };
        match name {
            "logits" => return Ok(OutputName::Logits),
            "last_hidden_state" => return Ok(OutputName::LastHiddenState),
            "attention_bias" => return Ok(OutputName::AttentionBias),
            "attended_keys" => return Ok(OutputName::AttendedKeys),
            _ => {}
        }
        let (family, rest) = name.split_once('.').ok_or_else(unknown)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| unknown());
        match (family, rest.split_once('.')) {
            ("present", Some((layer, "key"))) => Ok(OutputName::PresentKey(number(layer)?)),
            ("present", Some((layer, "value"))) => Ok(OutputName::PresentValue(number(layer)?)),
            ("hidden_states", None) => Ok(OutputName::HiddenState(number(rest)?)),
            ("attn_router_logits", None) => Ok(OutputName::AttentionRouterLogits(number(rest)?)),
            ("mlp_router_logits", None) => Ok(OutputName::MlpRouterLogits(number(rest)?)),
            ("attn_router_choice", None) => Ok(OutputName::AttentionRouterChoice(number(rest)?)),
            ("mlp_router_choice", None) => Ok(OutputName::MlpRouterChoice(number(rest)?)),
            _ => Err(unknown()),
        }
    }
}
