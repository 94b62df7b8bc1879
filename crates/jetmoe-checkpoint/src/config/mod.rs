//! `config.json` in both existing layouts: transformers' and that of the first hub upload.

mod activation;
mod architecture;
mod labels;
mod problem_type;
pub(crate) mod reader;
mod rope;

use std::path::Path;

use serde_json::{Map, Value};
use strum::VariantNames;

use self::reader::{ConfigReader, MAX_SIZE};
use crate::weights::expected_weights;
use crate::{ConfigProblem, Error, Result, read_json};

pub use activation::Activation;
pub use architecture::Architecture;
pub use problem_type::ProblemType;
pub use rope::{RopeParameters, RopeScaling};

/// A validated JetMoE configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// What the checkpoint was trained as.
    pub architecture: Architecture,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Key and value heads, shared by all attention experts.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub kv_channels: usize,
    /// Width of one MLP expert.
    pub intermediate_size: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Experts of each mixture.
    pub num_local_experts: usize,
    /// Experts that each token uses in each mixture.
    pub num_experts_per_token: usize,
    /// Activation of the MLP experts.
    pub activation: Activation,
    /// Epsilon of the final norm. The norms inside the layers always use [`ModelConfig::LAYER_NORM_EPS`].
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: RopeParameters,
    /// Whether the language-model head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// Token that pads batches.
    pub pad_token_id: Option<u32>,
    /// Names of the classes, in the order of the classification head's rows.
    pub labels: Vec<String>,
    /// What the logits of a classifier are trained for; `None` if the file does not say.
    pub problem_type: Option<ProblemType>,
}

impl ModelConfig {
    /// Epsilon of the two norms inside every layer: transformers does not pass `rms_norm_eps` to them.
    pub const LAYER_NORM_EPS: f64 = 1e-6;

    /// Reads and validates `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] lists every key that is wrong, not only the first.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json(&read_json(path)?)
            .map_err(|problems| Error::Config { path: path.to_owned(), problems })
    }

    /// Validates a parsed `config.json`.
    ///
    /// # Errors
    /// Every problem.
    pub fn from_json(value: &Value) -> Result<Self, Vec<ConfigProblem>> {
        Ok(Self::from_json_with_notes(value)?.0)
    }

    /// As [`ModelConfig::from_json`], with a note on every key that is not read as it is written.
    pub(crate) fn from_json_with_notes(value: &Value) -> Result<(Self, Vec<String>), Vec<ConfigProblem>> {
        let Value::Object(object) = value else {
            return Err(vec![ConfigProblem {
                key: "config.json".to_owned(),
                message: "is not a JSON object".to_owned(),
            }]);
        };
        let mut reader = ConfigReader::new(object, "");
        let config = read(&mut reader, object);
        let (problems, notes) = reader.into_findings();
        if problems.is_empty() { Ok((config, notes)) } else { Err(problems) }
    }

    /// Width of all key heads together. It may differ from the hidden size.
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.kv_channels
    }

    /// Query heads of one token: one per key head and selected expert.
    pub fn num_attention_heads(&self) -> usize {
        self.num_key_value_heads * self.num_experts_per_token
    }

    /// Number of weights that a checkpoint of this configuration has.
    pub fn parameters(&self) -> u64 {
        expected_weights(self).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Number of classes.
    pub fn num_labels(&self) -> usize {
        self.labels.len()
    }
}

/// Far more than any model has, and small enough to list every layer's tensors.
const MAX_LAYERS: usize = 10_000;

/// Reads every key, with the defaults of transformers' `JetMoeConfig`.
fn read(reader: &mut ConfigReader<'_>, object: &Map<String, Value>) -> ModelConfig {
    let architecture = architecture::read(reader, object);
    for key in ["glu", "bias"] {
        if !reader.boolean(key, true) {
            reader.problem(key, "is false; only true is supported");
        }
    }
    let num_local_experts = reader.size(&["num_local_experts", "moe_num_experts"], 8);
    let num_experts_per_token = reader.size(&["num_experts_per_tok", "moe_top_k"], 2);
    if num_experts_per_token > num_local_experts {
        reader.problem(
            "num_experts_per_tok",
            format!("is {num_experts_per_token}, more than num_local_experts, which is {num_local_experts}"),
        );
    }
    let num_key_value_heads = reader.size(&["num_key_value_heads"], 16);
    let kv_channels = reader.size(&["kv_channels", "head_dim"], 128);
    if !kv_channels.is_multiple_of(2) {
        reader.problem("kv_channels", format!("is {kv_channels}; rotary embedding needs an even number"));
    }
    let intermediate_size = reader.size(&["intermediate_size", "ffn_hidden_size"], 5632);
    bound_widths(
        reader,
        &[
            (
                "num_key_value_heads",
                "2 × num_key_value_heads × kv_channels",
                &[2, num_key_value_heads, kv_channels],
            ),
            (
                "num_experts_per_tok",
                "num_key_value_heads × num_experts_per_tok",
                &[num_key_value_heads, num_experts_per_token],
            ),
            ("intermediate_size", "2 × intermediate_size", &[2, intermediate_size]),
        ],
    );
    // no part of the model depends on this number, not in transformers either
    let heads = num_key_value_heads.saturating_mul(num_experts_per_token);
    if let Some(other) =
        reader.value("num_attention_heads").filter(|given| given.as_u64() != Some(heads as u64))
    {
        let computed = "it is always num_key_value_heads × num_experts_per_tok";
        reader.note("num_attention_heads", format_args!("is {other}; ignored, because {computed} = {heads}"));
    }
    let activation = match reader.text("activation_function") {
        None => Activation::Silu,
        Some(name) => name.parse().unwrap_or_else(|_| {
            let message = format!("{name:?} is not supported; known are {}", Activation::NAMES);
            reader.problem("activation_function", message);
            Activation::Silu
        }),
    };
    let vocab_size = reader.size(&["vocab_size"], 32_000);
    let max_position_embeddings = reader.size(&["max_position_embeddings"], 4096);
    let rms_norm_eps = reader.number("rms_norm_eps", 0.0).unwrap_or(1e-6);
    let rope = rope::read(reader, max_position_embeddings);
    let bos_token_id = read_single_token(reader, "bos_token_id", &[1]);
    let pad_token_id = read_single_token(reader, "pad_token_id", &[]);
    let eos_token_ids = reader.token_ids("eos_token_id", &[2]);
    let labels = labels::read(reader, architecture);
    for (key, id) in bos_token_id
        .map(|id| ("bos_token_id", id))
        .into_iter()
        .chain(eos_token_ids.iter().map(|id| ("eos_token_id", *id)))
    {
        if id as usize >= vocab_size {
            reader.note(
                key,
                format_args!("is {id}, beyond the vocabulary of {vocab_size}; the model never generates it"),
            );
        }
    }
    // transformers makes an embedding whose row of that index is the padding, and fails if there is none
    if let Some(id) = pad_token_id.filter(|id| *id as usize >= vocab_size) {
        reader.problem("pad_token_id", format!("is {id}, beyond the vocabulary of {vocab_size}"));
    }
    ModelConfig {
        architecture,
        vocab_size,
        hidden_size: reader.size(&["hidden_size"], 2048),
        num_hidden_layers: reader.size_up_to(&["num_hidden_layers", "num_layers"], 12, MAX_LAYERS),
        num_key_value_heads,
        kv_channels,
        intermediate_size,
        max_position_embeddings,
        num_local_experts,
        num_experts_per_token,
        activation,
        rms_norm_eps,
        rope,
        tie_word_embeddings: reader.boolean("tie_word_embeddings", true),
        bos_token_id,
        eos_token_ids,
        pad_token_id,
        problem_type: read_problem_type(reader, labels.len()),
        labels,
    }
}

/// Rejects sizes whose product, the width of some tensor, exceeds [`MAX_SIZE`]. Each entry is the key to report, the
/// product in words and its factors.
fn bound_widths(reader: &mut ConfigReader<'_>, widths: &[(&str, &str, &[usize])]) {
    for (key, product, factors) in widths {
        let width = factors.iter().try_fold(1_usize, |width, factor| width.checked_mul(*factor));
        if width.is_none_or(|width| width > MAX_SIZE) {
            reader.problem(key, format!("makes {product} larger than {MAX_SIZE}"));
        }
    }
}

fn read_single_token(reader: &mut ConfigReader<'_>, key: &'static str, default: &[u32]) -> Option<u32> {
    let ids = reader.token_ids(key, default);
    if ids.len() > 1 {
        reader.problem(key, "lists several ids, expected one");
    }
    ids.first().copied()
}

/// As in transformers, an unknown value is an error whatever the architecture is, and one class of a single one too.
fn read_problem_type(reader: &mut ConfigReader<'_>, labels: usize) -> Option<ProblemType> {
    let name = reader.text("problem_type")?;
    let known = name.parse().ok();
    match known {
        None => {
            let message =
                format!("{name:?} is not supported; known are {}", ProblemType::VARIANTS.join(", "));
            reader.problem("problem_type", message);
        }
        Some(ProblemType::SingleLabelClassification) if labels == 1 => reader.problem(
            "problem_type",
            format!(
                "is {name:?}, which needs several labels, and there is one; remove the key for a probability, or \
                 write \"regression\" for a value"
            ),
        ),
        Some(_) => {}
    }
    known
}
