//! Files for other ONNX clients: configuration, tokenizer, and the settings of onnxruntime-genai.

use std::path::Path;

use jetmoe_artifact::{GraphRecord, Task, names as artifact_names};
use jetmoe_checkpoint::{
    Checkpoint, GenerationConfig, ModelConfig, names, read_bytes, read_json_if_exists, read_text_if_exists,
    tokenizer_files,
};
use jetmoe_text::Tokenizer;
use serde_json::{Map, Value, json};

use crate::Result;

/// A file to write.
pub(crate) struct ClientFile {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// All client files of an artifact. A client that reads only one graph gets the first one that it can run.
pub(crate) fn client_files(
    checkpoint: &Checkpoint,
    settings: &GenerationConfig,
    graphs: &[GraphRecord],
) -> Result<Vec<ClientFile>> {
    let folder = checkpoint.folder();
    let config = checkpoint.config();
    let tokenizer = Tokenizer::open(folder)?;
    if let Some(tokenizer) = &tokenizer {
        tokenizer.check_chat_templates()?;
    }
    let mut files = vec![
        json_file(names::CONFIG, &transformers_config(read_object(folder, names::CONFIG)?, config)),
        json_file(names::GENERATION_CONFIG, &generation_config(folder, settings)?),
    ];
    // the settings of the tokenizer are not copied but completed
    for name in tokenizer_files(folder)?.into_iter().filter(|name| name != names::TOKENIZER_CONFIG) {
        let path = folder.join(&name);
        files.push(ClientFile { name, content: read_bytes(&path)? });
    }
    if let Some(tokenizer) = &tokenizer {
        files.push(json_file(names::TOKENIZER_CONFIG, &tokenizer_config(folder, config, tokenizer)?));
        let for_others = graphs.iter().filter(|graph| graph.profile.is_for_other_clients());
        let default = for_others.min_by_key(|graph| (graph.precision, graph.profile));
        if let Some(default) = default.filter(|graph| graph.task == Task::CausalLm) {
            files.push(json_file(artifact_names::GENAI_CONFIG, &genai_config(config, settings, default)));
        }
    }
    Ok(files)
}

fn json_file(name: &str, value: &Value) -> ClientFile {
    ClientFile { name: name.to_owned(), content: format!("{value:#}\n").into_bytes() }
}

fn read_object(folder: &Path, name: &str) -> Result<Map<String, Value>> {
    Ok(read_json_if_exists(&folder.join(name))?.unwrap_or_default())
}

/// The checkpoint's configuration in the layout of transformers, with the keys of the first hub upload renamed.
fn transformers_config(mut object: Map<String, Value>, config: &ModelConfig) -> Value {
    const RENAMED: &[(&str, &str)] = &[
        ("moe_num_experts", "num_local_experts"),
        ("moe_top_k", "num_experts_per_tok"),
        ("ffn_hidden_size", "intermediate_size"),
        ("torch_dtype", "dtype"),
    ];
    for (old, new) in RENAMED {
        if let Some(value) = object.shift_remove(*old) {
            object.entry(*new).or_insert(value);
        }
    }
    for fixed in ["glu", "bias"] {
        object.shift_remove(fixed);
    }
    if !object.contains_key("rope_parameters") {
        let mut rope = match object.shift_remove("rope_scaling") {
            Some(Value::Object(scaling)) => scaling,
            _ => Map::new(),
        };
        let kind = rope.shift_remove("type").unwrap_or_else(|| json!("default"));
        rope.entry("rope_type").or_insert(kind);
        object.shift_remove("rope_theta");
        rope.insert("rope_theta".to_owned(), json!(config.rope.theta));
        object.insert("rope_parameters".to_owned(), Value::Object(rope));
    }
    if let Some(Value::Array(architectures)) = object.get_mut("architectures") {
        for name in architectures {
            if let Some(renamed) = name.as_str().and_then(|name| name.strip_prefix("JetMoEFor")) {
                *name = json!(format!("JetMoeFor{renamed}"));
            }
        }
    }
    object.insert("model_type".to_owned(), json!("jetmoe"));
    // the file of the weights decides, and a client that reads the configuration alone must not tie them
    if !config.tie_word_embeddings {
        object.insert("tie_word_embeddings".to_owned(), json!(false));
    }
    object.insert("num_attention_heads".to_owned(), json!(config.num_attention_heads()));
    Value::Object(object)
}

/// The checkpoint's generation settings; without the file, the same settings from its configuration.
fn generation_config(folder: &Path, settings: &GenerationConfig) -> Result<Value> {
    if folder.join(names::GENERATION_CONFIG).is_file() {
        return Ok(Value::Object(read_object(folder, names::GENERATION_CONFIG)?));
    }
    let config = read_object(folder, names::CONFIG)?;
    let mut object: Map<String, Value> = GenerationConfig::keys_of_model_config(&config)
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    object.insert("bos_token_id".to_owned(), json!(settings.bos_token_id));
    object.insert("eos_token_id".to_owned(), json!(settings.eos_token_ids));
    object.insert("pad_token_id".to_owned(), json!(settings.pad_token_id));
    Ok(Value::Object(object))
}

/// The tokenizer's settings with the fields that other clients require: a known class, whether a begin token is added, a
/// padding token, and the chat template.
fn tokenizer_config(folder: &Path, config: &ModelConfig, tokenizer: &Tokenizer) -> Result<Value> {
    let mut object = read_object(folder, names::TOKENIZER_CONFIG)?;
    object.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    object.entry("model_input_names").or_insert_with(|| json!(["input_ids", "attention_mask"]));
    let first = tokenizer.encode("", true)?.first().copied();
    let adds_bos = first.is_some() && first == config.bos_token_id;
    object.insert("add_bos_token".to_owned(), json!(adds_bos));
    // what special_tokens_map.json says, which other clients do not read
    for (name, token) in tokenizer.special_tokens() {
        let known = object.get(name).map(|known| known.get("content").unwrap_or(known));
        if known.and_then(Value::as_str) != Some(token) {
            object.insert(name.clone(), json!(token));
        }
    }
    if !object.contains_key("pad_token") {
        let padding = config.pad_token_id.and_then(|id| tokenizer.token(id)).map(|token| json!(token));
        if let Some(padding) = padding.or_else(|| object.get("eos_token").cloned()) {
            object.insert("pad_token".to_owned(), padding);
        }
    }
    if let Some(template) = read_text_if_exists(&folder.join(names::CHAT_TEMPLATE))? {
        object.insert("chat_template".to_owned(), json!(template));
    } else if !object.contains_key("chat_template") {
        let old = read_object(folder, names::CHAT_TEMPLATE_JSON)?;
        object.extend(old.into_iter().filter(|(key, _)| key == "chat_template"));
    }
    Ok(Value::Object(object))
}

/// Settings of onnxruntime-genai. It rejects unknown keys, and its default names of inputs and outputs are those of the artifact.
fn genai_config(config: &ModelConfig, settings: &GenerationConfig, graph: &GraphRecord) -> Value {
    let padding = settings.pad_token_id.or(settings.eos_token_ids.first().copied()).unwrap_or(0);
    let eos = match settings.eos_token_ids.as_slice() {
        // it would take the padding token anyway
        [] => json!(padding),
        [single] => json!(single),
        several => json!(several),
    };
    json!({
        "model": {
            "type": "decoder",
            "bos_token_id": settings.bos_token_id.unwrap_or(padding),
            "eos_token_id": eos,
            "pad_token_id": padding,
            "context_length": config.max_position_embeddings,
            "vocab_size": config.vocab_size,
            "decoder": {
                "filename": graph.graph.path,
                "num_attention_heads": config.num_attention_heads(),
                "num_key_value_heads": config.num_key_value_heads,
                "num_hidden_layers": config.num_hidden_layers,
                "head_size": config.kv_channels,
                "hidden_size": config.hidden_size,
            },
        },
        "search": genai_search(config, settings, graph),
    })
}

/// The settings that onnxruntime-genai can follow, with the defaults of transformers.
fn genai_search(config: &ModelConfig, settings: &GenerationConfig, graph: &GraphRecord) -> Value {
    let cache_update = graph.signature(config).cache_update;
    let positions = config.max_position_embeddings;
    let mut search = json!({
        "do_sample": settings.do_sample == Some(true),
        "max_length": settings.max_length.map_or(positions, |length| length.min(positions)),
        "past_present_share_buffer": cache_update.is_in_place(),
    });
    let optional = [
        ("temperature", settings.temperature.map(number)),
        ("top_k", settings.top_k.map(|top_k| json!(top_k))),
        ("top_p", settings.top_p.map(number)),
        ("repetition_penalty", settings.repetition_penalty.map(number)),
        ("min_length", settings.min_length.map(|length| json!(length))),
        ("no_repeat_ngram_size", settings.no_repeat_ngram_size.map(|size| json!(size))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            search[key] = value;
        }
    }
    search
}

/// A number as it was written, without the digits that float64 would add.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or_else(|_| json!(value), |value| json!(value))
}
