//! `generation_config.json`: the checkpoint's settings for generation, every key of transformers' `GenerationConfig`.

mod keys;
mod reader;

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use self::reader::SettingsReader;
use crate::{ConfigProblem, Error, ModelConfig, Result, names, read_json};

/// Settings for generation that come with a checkpoint, by the keys of transformers 5.23. A setting that the file does not
/// name, or whose value means none, is `None` or empty.
///
/// Every key of the file is one of four: a field here; without effect on the text, such as `use_cache`; in
/// [`GenerationConfig::not_applied`]; or in [`GenerationConfig::unknown_keys`].
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; one number or a list in the file. Empty: only a limit ends it.
    pub eos_token_ids: Vec<u32>,
    /// Token that pads batches. A negative one in the file means none.
    pub pad_token_id: Option<u32>,
    /// Most tokens of a continuation.
    pub max_new_tokens: Option<usize>,
    /// Most tokens of prompt and continuation together; of no effect beside `max_new_tokens`.
    pub max_length: Option<usize>,
    /// Fewest tokens of a continuation.
    pub min_new_tokens: Option<usize>,
    /// Fewest tokens of prompt and continuation together; of no effect beside `min_new_tokens`.
    pub min_length: Option<usize>,
    /// Texts that end a continuation.
    pub stop_strings: Vec<String>,
    /// Whether to sample; greedy otherwise.
    pub do_sample: Option<bool>,
    /// Divisor of the logits before sampling.
    pub temperature: Option<f32>,
    /// Number of most probable tokens to sample from; 0 for all. −1 in the file is 0, as in vLLM.
    pub top_k: Option<usize>,
    /// Sample from the smallest set of most probable tokens with at least this probability. 1 and more in the file mean none.
    pub top_p: Option<f32>,
    /// Least probability, relative to the most probable token's.
    pub min_p: Option<f32>,
    /// Sample from the most probable tokens with at most this share of the entropy.
    pub top_h: Option<f32>,
    /// Sample from the most typical tokens with at least this probability. 1 and more in the file mean none.
    pub typical_p: Option<f32>,
    /// Least probability. Values outside of 0 to 1 in the file mean none.
    pub epsilon_cutoff: Option<f32>,
    /// Least probability, lower for distributions of high entropy. Values outside of 0 to 1 in the file mean none.
    pub eta_cutoff: Option<f32>,
    /// Divisor of the logits of tokens that occurred before.
    pub repetition_penalty: Option<f32>,
    /// Multiplier of the logits of tokens of the prompt.
    pub encoder_repetition_penalty: Option<f32>,
    /// Length of the n-grams that may occur only once in prompt and continuation.
    pub no_repeat_ngram_size: Option<usize>,
    /// Length of the n-grams of the prompt that may not occur again.
    pub encoder_no_repeat_ngram_size: Option<usize>,
    /// Sequences of tokens that are never completed.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// What is added to the logit of a sequence's last token after its other tokens.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated first.
    pub begin_suppress_tokens: Vec<u32>,
    /// The first token after a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token, where the length ends a continuation.
    pub forced_eos_token_ids: Vec<u32>,
    /// From this many new tokens on, end-of-sequence tokens become more probable by a power of this factor.
    pub exponential_decay_length_penalty: Option<(i64, f64)>,
    /// Whether NaN and infinite logits are replaced instead of being an error.
    pub remove_invalid_values: bool,
    not_applied: Vec<SettingNotApplied>,
    unknown_keys: Vec<String>,
}

/// A setting of the checkpoint that changes what transformers generates, and that is not followed here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingNotApplied {
    /// Its key in `generation_config.json`.
    pub key: String,
    /// Its value, as JSON; a long one is cut.
    pub value: String,
    /// What happens instead.
    pub reason: &'static str,
}

impl fmt::Display for SettingNotApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.key, self.value, self.reason)
    }
}

impl GenerationConfig {
    /// The special tokens of a model's configuration, and no other setting.
    pub fn from_model_config(config: &ModelConfig) -> Self {
        GenerationConfig {
            bos_token_id: config.bos_token_id,
            eos_token_ids: config.eos_token_ids.clone(),
            pad_token_id: config.pad_token_id,
            ..Self::default()
        }
    }

    /// Reads `generation_config.json` of a folder. As in transformers 5.23, that file alone holds the settings if there is
    /// one: a special token that it does not name is none. Without it, special tokens are those of `config`, by the rules of
    /// `config.json`, and other settings are read from `config.json`, where older releases wrote them.
    ///
    /// # Errors
    /// A file that cannot be read. [`Error::GenerationConfig`] lists every key with a value that cannot be followed.
    pub fn open(folder: &Path, config: &ModelConfig) -> Result<Self> {
        let has_own_file = folder.join(names::GENERATION_CONFIG).is_file();
        let file = if has_own_file { names::GENERATION_CONFIG } else { names::CONFIG };
        let path = folder.join(file);
        if !path.is_file() {
            return Ok(Self::from_model_config(config));
        }
        let fail = |problems| Error::GenerationConfig { path: path.clone(), problems };
        let Value::Object(mut object) = read_json(&path)? else {
            let problem = ConfigProblem { key: file.to_owned(), message: "is not a JSON object".to_owned() };
            return Err(fail(vec![problem]));
        };
        if !has_own_file {
            object.retain(|key, _| keys::is_of_generation(key));
        }
        let mut settings = Self::from_json(&object, config.vocab_size).map_err(fail)?;
        if !has_own_file {
            let special = Self::from_model_config(config);
            (settings.bos_token_id, settings.pad_token_id) = (special.bos_token_id, special.pad_token_id);
            settings.eos_token_ids = special.eos_token_ids;
        }
        Ok(settings)
    }

    /// Reads a parsed `generation_config.json` of a model with a vocabulary of `vocab_size` ids.
    ///
    /// # Errors
    /// Every problem.
    pub fn from_json(object: &Map<String, Value>, vocab_size: usize) -> Result<Self, Vec<ConfigProblem>> {
        let mut reader = SettingsReader::new(object, vocab_size);
        let mut config = read(&mut reader);
        keys::check_combinations(&mut reader);
        (config.not_applied, config.unknown_keys) = keys::sort_out(object);
        let problems = reader.into_problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The keys of a parsed `config.json` that are settings for generation, without special tokens. Releases of transformers
    /// before 4.26 wrote them there.
    pub fn keys_of_model_config(object: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
        object.iter().filter(|(key, _)| keys::is_of_generation(key))
    }

    /// Settings that change what transformers generates, and that are not followed.
    pub fn not_applied(&self) -> &[SettingNotApplied] {
        &self.not_applied
    }

    /// Keys that transformers 5.23 does not have. They have no effect, there and here.
    pub fn unknown_keys(&self) -> &[String] {
        &self.unknown_keys
    }
}

/// Reads every key that is applied.
fn read(reader: &mut SettingsReader<'_>) -> GenerationConfig {
    let samples = reader.boolean("do_sample");
    // transformers checks a value where it is used, and uses these only when it samples
    reader.set_in_effect(samples == Some(true));
    let temperature = reader.number("temperature", |value| value > 0.0, "above 0, or do_sample false");
    let top_k = reader.top_k("top_k");
    let top_p = reader.number("top_p", |value| value >= 0.0, "from 0 to 1").filter(|value| *value < 1.0);
    let min_p = reader.number("min_p", |value| (0.0..=1.0).contains(&value), "from 0 to 1");
    let top_h = reader.number("top_h", |value| value > 0.0 && value <= 1.0, "above 0 and at most 1");
    let typical_p = reader.number("typical_p", |value| value > 0.0, "above 0").filter(|value| *value < 1.0);
    let between = |value: &f32| *value > 0.0 && *value < 1.0;
    let epsilon_cutoff = reader.number("epsilon_cutoff", |_| true, "a number").filter(between);
    let eta_cutoff = reader.number("eta_cutoff", |_| true, "a number").filter(between);
    reader.set_in_effect(true);

    let max_new_tokens = reader.count("max_new_tokens", 1);
    let min_new_tokens = reader.count("min_new_tokens", i64::MIN);
    let max_length = reader.count("max_length", 1);
    let min_length = reader.count("min_length", i64::MIN);
    GenerationConfig {
        bos_token_id: reader.special_token("bos_token_id"),
        eos_token_ids: reader.special_tokens("eos_token_id"),
        pad_token_id: reader.special_token("pad_token_id"),
        max_length: max_length.filter(|_| max_new_tokens.is_none()),
        min_length: min_length.filter(|_| reader.value("min_new_tokens").is_none()),
        max_new_tokens,
        min_new_tokens,
        stop_strings: reader.texts("stop_strings"),
        do_sample: samples,
        temperature,
        top_k,
        top_p,
        min_p,
        top_h,
        typical_p,
        epsilon_cutoff,
        eta_cutoff,
        repetition_penalty: reader.penalty("repetition_penalty"),
        encoder_repetition_penalty: reader.penalty("encoder_repetition_penalty"),
        no_repeat_ngram_size: reader.count("no_repeat_ngram_size", i64::MIN),
        encoder_no_repeat_ngram_size: reader.count("encoder_no_repeat_ngram_size", i64::MIN),
        bad_words_ids: reader.bad_words("bad_words_ids"),
        sequence_bias: reader.sequence_bias("sequence_bias"),
        suppress_tokens: reader.suppressed("suppress_tokens"),
        begin_suppress_tokens: reader.suppressed("begin_suppress_tokens"),
        forced_bos_token_id: reader.forced_token("forced_bos_token_id"),
        forced_eos_token_ids: reader.forced_tokens("forced_eos_token_id"),
        exponential_decay_length_penalty: reader.decay("exponential_decay_length_penalty"),
        remove_invalid_values: reader.boolean("remove_invalid_values") == Some(true),
        not_applied: Vec::new(),
        unknown_keys: Vec::new(),
    }
}
