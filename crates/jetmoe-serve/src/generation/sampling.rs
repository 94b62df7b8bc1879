//! The sampling fields that requests share, and the options that they set.

use std::collections::BTreeMap;

use jetmoe_rt::{GenerationConfig, GenerationOptions, Multinomial, Sampling};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Limits;
use crate::engine::Engine;
use crate::error::{ApiError, ApiResult};

/// Most stop strings of a request; OpenAI allows 4.
const MAX_STOPS: usize = 32;

/// Largest absolute value of a logit bias, as in OpenAI's API.
const MAX_BIAS: f64 = 100.0;

/// The sampling fields that requests share. `None` for one that a request does not have.
#[derive(Debug, Clone, Default)]
pub(crate) struct SamplingFields {
    pub(crate) max_tokens: Option<u64>,
    pub(crate) min_tokens: Option<u64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f64>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<Stop>,
    pub(crate) stop_token_ids: Option<Vec<u32>>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) frequency_penalty: Option<f64>,
    pub(crate) presence_penalty: Option<f64>,
    pub(crate) repetition_penalty: Option<f64>,
    pub(crate) logit_bias: Option<BTreeMap<String, f64>>,
    /// Most probable tokens to report in the place of each token; 0 for the token alone.
    pub(crate) log_probabilities: Option<usize>,
}

/// One text that ends the continuation, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Stop {
    /// One text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

/// The most tokens of a continuation, if a request does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultLength {
    /// So many.
    Tokens(usize),
    /// As many as there is place for behind the prompt.
    Rest,
}

impl SamplingFields {
    /// The options of a job. Where a request has no field, the settings of the checkpoint hold; without those the defaults of
    /// OpenAI's API, by which a token is drawn at temperature 1.
    ///
    /// # Errors
    /// Status 400 for a value that is not valid, with the field as the parameter.
    pub(crate) fn options(
        &self,
        engine: &Engine,
        limits: &Limits,
        default: DefaultLength,
    ) -> ApiResult<GenerationOptions> {
        let generator = engine.generator();
        let model = generator.model();
        let mut options = GenerationOptions::for_model(model)
            .with_max_new_tokens(self.max_new_tokens(limits, engine.capacity(), default)?)
            .with_sampling(self.sampling(model.generation_config())?)
            .with_seed(self.seed.map(|seed| seed as u64))
            .with_log_probabilities(self.log_probabilities);
        if let Some(tokens) = self.min_tokens {
            options = options.with_min_new_tokens(tokens.min(engine.capacity() as u64) as usize);
        }
        if let Some(stop) = &self.stop {
            options = options.with_stop(stop.texts()?);
        }
        if let Some(ids) = self.eos_token_ids(generator.eos_token_ids(), model.config().vocab_size)? {
            options = options.with_eos_token_ids(ids);
        }
        if let Some(penalty) = self.frequency_penalty {
            options = options.with_frequency_penalty(narrow("frequency_penalty", penalty)?);
        }
        if let Some(penalty) = self.presence_penalty {
            options = options.with_presence_penalty(narrow("presence_penalty", penalty)?);
        }
        if let Some(penalty) = self.repetition_penalty {
            options = options.with_repetition_penalty(narrow("repetition_penalty", penalty)?);
        }
        if let Some(biases) = &self.logit_bias {
            options.sequence_bias.extend(sequence_bias(biases, model.config().vocab_size)?);
        }
        options.validate()?;
        Ok(options)
    }

    fn max_new_tokens(&self, limits: &Limits, capacity: usize, default: DefaultLength) -> ApiResult<usize> {
        let limit = limits.max_tokens.unwrap_or(usize::MAX);
        match (self.max_tokens, default) {
            (Some(tokens), _) if tokens > limit as u64 => {
                let message = format!("max_tokens is {tokens}, expected at most {limit}");
                Err(ApiError::invalid("max_tokens", message))
            }
            // the sequence ends with the capacity anyway
            (Some(tokens), _) => Ok(tokens.min(capacity as u64) as usize),
            (None, DefaultLength::Tokens(tokens)) => Ok(tokens.min(limit)),
            (None, DefaultLength::Rest) => Ok(capacity.min(limit)),
        }
    }

    fn sampling(&self, config: &GenerationConfig) -> ApiResult<Sampling> {
        let temperature = self
            .temperature
            .map_or(Ok(config.temperature), |value| narrow("temperature", value).map(Some))?;
        if temperature == Some(0.0) {
            self.check_filters()?;
            return Ok(Sampling::Greedy);
        }
        let top_k = match self.top_k {
            None => config.top_k.filter(|top_k| *top_k > 0),
            // both are "all" for clients of other servers
            Some(-1 | 0) => None,
            Some(top_k) => Some(usize::try_from(top_k).map_err(|_| {
                ApiError::invalid(
                    "top_k",
                    format!("top_k is {top_k}, expected at least 1, or 0 or -1 for all tokens"),
                )
            })?),
        };
        let top_p = self.top_p.map_or(Ok(config.top_p), |value| narrow("top_p", value).map(Some))?;
        let min_p = self.min_p.map_or(Ok(config.min_p), |value| narrow("min_p", value).map(Some))?;
        let mut multinomial =
            Multinomial::from_config(config).with_top_k(top_k).with_top_p(top_p).with_min_p(min_p);
        multinomial.temperature = temperature.unwrap_or(1.0);
        Ok(multinomial.into())
    }

    /// Filters that greedy decoding does not use are valid all the same.
    fn check_filters(&self) -> ApiResult<()> {
        let sampled = SamplingFields { temperature: Some(1.0), ..self.clone() };
        let sampling = sampled.sampling(&GenerationConfig::default())?;
        Ok(GenerationOptions::default().with_sampling(sampling).validate()?)
    }

    /// The tokens that end the sequence, if they are others than the model's.
    fn eos_token_ids(&self, of_model: &[u32], vocab_size: usize) -> ApiResult<Option<Vec<u32>>> {
        let ignores = self.ignore_eos == Some(true);
        let further = self.stop_token_ids.as_deref().unwrap_or_default();
        if let Some(id) = further.iter().find(|id| **id as usize >= vocab_size) {
            let message = format!("stop_token_ids has {id}, and the model has {vocab_size} tokens");
            return Err(ApiError::invalid("stop_token_ids", message));
        }
        if !ignores && further.is_empty() {
            return Ok(None);
        }
        let of_model = if ignores { &[] } else { of_model };
        Ok(Some([of_model, further].concat()))
    }
}

impl Stop {
    fn texts(&self) -> ApiResult<Vec<String>> {
        let texts = match self {
            Stop::One(text) => vec![text.clone()],
            Stop::Many(texts) => texts.clone(),
        };
        if texts.len() > MAX_STOPS {
            return Err(ApiError::invalid(
                "stop",
                format!("stop has {} texts, expected at most {MAX_STOPS}", texts.len()),
            ));
        }
        Ok(texts)
    }
}

/// A number as the runtime takes it. One beyond float32 becomes infinite, which the runtime refuses by name.
fn narrow(field: &str, value: f64) -> ApiResult<f32> {
    let narrow = value as f32;
    // a temperature above 0 that float32 does not have is not greedy decoding
    if narrow == 0.0 && value != 0.0 {
        return Err(ApiError::invalid(field, format!("{field} is {value:e}, which is too near to 0")));
    }
    Ok(narrow)
}

fn sequence_bias(biases: &BTreeMap<String, f64>, vocab_size: usize) -> ApiResult<Vec<(Vec<u32>, f32)>> {
    let bias = |(token, bias): (&String, &f64)| {
        let id = token.parse::<u32>().ok().filter(|id| (*id as usize) < vocab_size).ok_or_else(|| {
            let message = format!("logit_bias has the key {token:?}, expected token ids below {vocab_size}");
            ApiError::invalid("logit_bias", message)
        })?;
        if !(-MAX_BIAS..=MAX_BIAS).contains(bias) {
            let message = format!("logit_bias of {id} is {bias}, expected -100 to 100");
            return Err(ApiError::invalid("logit_bias", message));
        }
        Ok((vec![id], *bias as f32))
    };
    biases.iter().map(bias).collect()
}

/// Defines a request with fields of its own and the sampling fields that requests share, and a method that returns the latter. A
/// flattened struct would accept unknown fields.
macro_rules! request {
    ($(#[$attribute:meta])* $name:ident { $($(#[$field_attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$field_attribute])* pub(super) $field: $type,)*
            /// Divides the logits; 0 takes the most probable token. By default that of the checkpoint, or 1.
            #[schema(minimum = 0)]
            pub(super) temperature: Option<f64>,
            /// Draws from the fewest most probable tokens with this total probability. By default that of the checkpoint, or 1.
            #[schema(minimum = 0, maximum = 1)]
            pub(super) top_p: Option<f64>,
            /// Draws from so many most probable tokens; 0 or -1 for all. By default that of the checkpoint, or all.
            pub(super) top_k: Option<i64>,
            /// Draws from tokens with this share of the best one's probability. By default that of the checkpoint, or 0.
            #[schema(minimum = 0, maximum = 1)]
            pub(super) min_p: Option<f64>,
            /// The same seed gives the same answer. Choice `i` is drawn with `seed + i`.
            pub(super) seed: Option<i64>,
            /// Texts that end the answer and are not part of it, at most 32.
            pub(super) stop: Option<crate::generation::Stop>,
            /// Tokens that end the answer beside those of the model.
            pub(super) stop_token_ids: Option<Vec<u32>>,
            /// Whether the model's end-of-sequence tokens do not end the answer. False by default.
            pub(super) ignore_eos: Option<bool>,
            /// Fewest tokens before the answer may end. 0 by default.
            pub(super) min_tokens: Option<u64>,
            /// What the logit of a token loses for each time that the answer has it. 0 by default.
            pub(super) frequency_penalty: Option<f64>,
            /// What the logit of a token loses if the answer has it. 0 by default.
            pub(super) presence_penalty: Option<f64>,
            /// Divides the positive logits, and multiplies the negative ones, of tokens that prompt or answer have. 1 by default.
            #[schema(exclusive_minimum = 0)]
            pub(super) repetition_penalty: Option<f64>,
            /// What is added to the logits of tokens, by their ids, from -100 to 100.
            #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
            pub(super) logit_bias: Option<std::collections::BTreeMap<String, f64>>,
            /// Number of choices; 1 by default.
            #[schema(minimum = 1)]
            pub(super) n: Option<usize>,
            /// Whether the answer comes as server-sent events. False by default.
            pub(super) stream: Option<bool>,
            /// How it comes so.
            pub(super) stream_options: Option<crate::routes::openai::StreamOptions>,
            /// What the text of the answer must be like.
            pub(super) response_format: Option<crate::generation::ResponseFormat>,
            /// The same in the form of vLLM. Not together with `response_format`.
            pub(super) structured_outputs: Option<crate::generation::StructuredOutputs>,
            /// Requests of a lower number start first, as in vLLM. 0 by default.
            pub(super) priority: Option<i32>,
            /// Whether special tokens have no text. Only true, the default, is supported.
            pub(super) skip_special_tokens: Option<bool>,
            /// Whether the stop text is part of the answer. Only false, the default, is supported.
            pub(super) include_stop_str_in_output: Option<bool>,
            /// Reports the experts of every token, if the model observes them. False by default.
            pub(super) experts: Option<bool>,
            /// Identifies an end user. Accepted; has no effect.
            #[allow(dead_code, reason = "identifies an end user, and no result depends on it")]
            pub(super) user: Option<String>,
        }

        impl $name {
            /// The sampling fields. Lengths and log-probabilities have other names in each request.
            pub(super) fn sampling_fields(&self) -> crate::generation::SamplingFields {
                crate::generation::SamplingFields {
                    max_tokens: None,
                    log_probabilities: None,
                    min_tokens: self.min_tokens,
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    seed: self.seed,
                    stop: self.stop.clone(),
                    stop_token_ids: self.stop_token_ids.clone(),
                    ignore_eos: self.ignore_eos,
                    frequency_penalty: self.frequency_penalty,
                    presence_penalty: self.presence_penalty,
                    repetition_penalty: self.repetition_penalty,
                    logit_bias: self.logit_bias.clone(),
                }
            }

            /// The fields that both requests treat alike.
            pub(super) fn common(&self) -> crate::routes::openai::CommonFields<'_> {
                crate::routes::openai::CommonFields {
                    n: self.n,
                    stream: self.stream,
                    stream_options: self.stream_options.as_ref(),
                    response_format: self.response_format.as_ref(),
                    structured_outputs: self.structured_outputs.as_ref(),
                    priority: self.priority,
                    skip_special_tokens: self.skip_special_tokens,
                    include_stop_str_in_output: self.include_stop_str_in_output,
                    experts: self.experts,
                }
            }
        }
    };
}
pub(crate) use request;
