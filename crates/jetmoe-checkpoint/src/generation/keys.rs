//! The keys of transformers' `GenerationConfig` (5.23, `generation/configuration_utils.py`) that are no fields of ours.

use serde_json::{Map, Value};

use super::SettingNotApplied;
use super::reader::{SettingsReader, integer, shortened};

/// Keys that are fields.
const APPLIED: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "do_sample",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "pad_token_id",
    "remove_invalid_values",
    "repetition_penalty",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
];

/// Keys that do not change the text of one sequence of a decoder: speed and memory, reports, models with an encoder, beams
/// without `num_beams`, speculation, and `renormalize_logits`, which adds one number to all logits.
const WITHOUT_EFFECT: &[&str] = &[
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "diversity_penalty",
    "early_stopping",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "renormalize_logits",
    "return_dict_in_generate",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
];

/// A key that changes the text, the values that do not, and what happens instead.
type NotSupported = (&'static str, fn(&Value) -> bool, &'static str);

const NOT_SUPPORTED: &[NotSupported] = &[
    ("assistant_early_exit", is_off, "all layers compute every token"),
    ("constraints", is_off, "no constraint is followed"),
    ("dola_layers", is_off, "the logits are those of the last layer"),
    ("force_words_ids", is_off, "no word is forced"),
    ("guidance_scale", |value| value.as_f64() == Some(1.0), "there is no classifier-free guidance"),
    ("max_time", is_off, "the time is not limited"),
    ("num_beam_groups", is_at_most_one, "one sequence is followed, without beams"),
    ("num_beams", is_at_most_one, "one sequence is followed, without beams"),
    ("num_return_sequences", is_at_most_one, "a prompt has one continuation"),
    ("penalty_alpha", is_not_positive, "there is no contrastive search"),
    ("token_healing", is_off, "the last token of the prompt is kept"),
    ("watermarking_config", is_off, "the text has no watermark"),
];

/// Arguments of `generate` that transformers rejects in the file.
const ARGUMENTS: &[&str] = &[
    "assistant_model",
    "logits_processor",
    "negative_prompt_attention_mask",
    "negative_prompt_ids",
    "prefix_allowed_tokens_fn",
    "stopping_criteria",
    "streamer",
    "synced_gpus",
];

fn is_off(value: &Value) -> bool {
    matches!(value, Value::Bool(false)) || value.as_array().is_some_and(Vec::is_empty)
}

fn is_at_most_one(value: &Value) -> bool {
    integer(value).is_some_and(|number| number <= 1)
}

fn is_not_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number <= 0.0)
}

/// Special tokens: `config.json` has them for itself and by its own rules.
const SPECIAL_TOKENS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// Whether a key of `config.json` is a setting for generation. Special tokens, and flags that `config.json` has for itself, are not.
pub(super) fn is_of_generation(key: &str) -> bool {
    let is_setting = || APPLIED.contains(&key) || NOT_SUPPORTED.iter().any(|(name, ..)| *name == key);
    !SPECIAL_TOKENS.contains(&key) && is_setting()
}

/// The settings that are not followed, and the keys that transformers does not have.
pub(super) fn sort_out(object: &Map<String, Value>) -> (Vec<SettingNotApplied>, Vec<String>) {
    let (mut not_applied, mut unknown) = (Vec::new(), Vec::new());
    for (key, value) in object {
        if let Some((_, is_harmless, reason)) = NOT_SUPPORTED.iter().find(|(name, ..)| name == key) {
            if !value.is_null() && !is_harmless(value) {
                not_applied.push(SettingNotApplied { key: key.clone(), value: shortened(value), reason });
            }
        } else if !APPLIED.contains(&key.as_str()) && !WITHOUT_EFFECT.contains(&key.as_str()) {
            unknown.push(key.clone());
        }
    }
    (not_applied, unknown)
}

/// Rejects what transformers rejects when it loads the file (`GenerationConfig.validate`).
pub(super) fn check_combinations(reader: &mut SettingsReader<'_>) {
    for argument in ARGUMENTS {
        if reader.value(argument).is_some() {
            reader.problem(argument, "is no setting but an argument of transformers' generate; remove it");
        }
    }
    let is_known = |value: &Value| value.is_boolean() || value.as_str() == Some("never");
    if let Some(value) = reader.value("early_stopping").filter(|value| !is_known(value)) {
        reader.problem("early_stopping", format!("is {}, expected a boolean or \"never\"", shortened(value)));
    }
    let number = |reader: &SettingsReader<'_>, key| reader.value(key).and_then(integer).unwrap_or(1);
    let (sequences, beams) = (number(reader, "num_return_sequences"), number(reader, "num_beams"));
    let samples = reader.value("do_sample").and_then(Value::as_bool).unwrap_or(false);
    if sequences > 1 && beams <= 1 && !samples {
        reader.problem("num_return_sequences", format!("is {sequences}, and greedy decoding has one result"));
    } else if sequences > beams && beams > 1 {
        reader.problem(
            "num_return_sequences",
            format!("is {sequences}, more than num_beams, which is {beams}"),
        );
    }
    let ids = |reader: &SettingsReader<'_>, key| -> Vec<i64> {
        match reader.value(key) {
            Some(Value::Array(list)) => list.iter().filter_map(integer).collect(),
            Some(single) => integer(single).into_iter().collect(),
            None => Vec::new(),
        }
    };
    let suppressed = ids(reader, "suppress_tokens");
    for key in ["forced_bos_token_id", "forced_eos_token_id"] {
        let forced = ids(reader, key);
        if !forced.is_empty() && forced.iter().all(|id| suppressed.contains(id)) {
            reader
                .problem(key, format!("is {forced:?}, and suppress_tokens excludes it; remove one of them"));
        }
    }
}
