//! Names of a JetMoE checkpoint's files and tensors. No other module spells them.

use std::path::Path;

/// Model configuration.
pub const CONFIG: &str = "config.json";
/// Defaults for generation: end-of-sequence tokens, sampling.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The tokenizer in Hugging Face's own format.
pub const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer in SentencePiece's format, which older checkpoints have.
pub const SENTENCEPIECE_TOKENIZER: &str = "tokenizer.model";
/// Special tokens and, often, the chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The chat template in a separate file.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Further chat templates, one in each file.
pub const ADDITIONAL_CHAT_TEMPLATES: &str = "additional_chat_templates";
/// The chat template as processors of transformers 4 wrote it.
pub const CHAT_TEMPLATE_JSON: &str = "chat_template.json";
/// Special tokens, as transformers 4 wrote them.
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// Ids of added tokens, as early releases of transformers 4 wrote them.
pub const ADDED_TOKENS: &str = "added_tokens.json";
/// Every file of a tokenizer and its chat templates, apart from those in [`ADDITIONAL_CHAT_TEMPLATES`].
pub const TOKENIZER_FILES: [&str; 7] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    CHAT_TEMPLATE,
    CHAT_TEMPLATE_JSON,
    SPECIAL_TOKENS_MAP,
    ADDED_TOKENS,
    SENTENCEPIECE_TOKENIZER,
];
/// Settings of an adapter of PEFT, which is no model by itself.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Which shard file holds which tensor.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Name of the chat template in a file of [`ADDITIONAL_CHAT_TEMPLATES`], such as `rag` for
/// `additional_chat_templates/rag.jinja`. `None` for any other file. `file` is relative to the checkpoint, with `/`.
pub fn additional_chat_template(file: &str) -> Option<&str> {
    let name = file.strip_prefix(ADDITIONAL_CHAT_TEMPLATES)?.strip_prefix('/')?.strip_suffix(".jinja")?;
    (!name.contains('/')).then_some(name)
}

/// Most bytes of a file that is read into memory as a whole, by its name: 256 MiB for a tokenizer, which holds the vocabulary, and
/// 16 MiB for any other file.
pub fn size_limit(path: &Path) -> u64 {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(TOKENIZER | SENTENCEPIECE_TOKENIZER) => 256 << 20,
        _ => 16 << 20,
    }
}

/// Token embedding, `[vocab_size, hidden_size]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Weight of the final norm, `[hidden_size]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Language-model head, `[vocab_size, hidden_size]`; absent if it is tied to the embedding.
pub const LM_HEAD: &str = "lm_head.weight";
/// Classification head, `[labels, hidden_size]`.
pub const SCORE: &str = "score.weight";

/// The two mixtures of a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mixture {
    /// Mixture of attention heads: `self_attention.experts`.
    Attention,
    /// Mixture of MLP experts: `mlp`.
    Mlp,
}

impl Mixture {
    fn prefix(self) -> &'static str {
        match self {
            Mixture::Attention => "self_attention.experts",
            Mixture::Mlp => "mlp",
        }
    }
}

/// Norm before attention, `[hidden_size]`.
pub fn input_norm(layer: usize) -> String {
    format!("model.layers.{layer}.input_layernorm.weight")
}

/// Norm before the MLP experts, `[hidden_size]`.
pub fn post_attention_norm(layer: usize) -> String {
    format!("model.layers.{layer}.post_attention_layernorm.weight")
}

/// Shared key and value projection, keys first, `[2 * kv_heads * kv_channels, hidden_size]`.
pub fn kv_projection(layer: usize) -> String {
    format!("model.layers.{layer}.self_attention.kv_proj.weight")
}

/// Router, `[experts, hidden_size]`.
pub fn router(layer: usize, mixture: Mixture) -> String {
    format!("model.layers.{layer}.{}.router.layer.weight", mixture.prefix())
}

/// First product of every expert: the query projection `[experts, kv_heads * kv_channels, hidden_size]`, or gate
/// rows followed by up rows `[experts, 2 * intermediate_size, hidden_size]`.
pub fn expert_input(layer: usize, mixture: Mixture) -> String {
    format!("model.layers.{layer}.{}.input_linear.weight", mixture.prefix())
}

/// Second product of every expert: `[experts, hidden_size, kv_heads * kv_channels]` or
/// `[experts, hidden_size, intermediate_size]`.
pub fn expert_output(layer: usize, mixture: Mixture) -> String {
    format!("model.layers.{layer}.{}.output_linear.weight", mixture.prefix())
}

/// Bias added once to the sum of the experts, `[hidden_size]`.
pub fn expert_bias(layer: usize, mixture: Mixture) -> String {
    format!("model.layers.{layer}.{}.bias", mixture.prefix())
}
