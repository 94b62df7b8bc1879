//! The fields of completions.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult};
use crate::generation::request;

/// Most tokens in the place of a token that are reported.
const MAX_LOGPROBS: usize = 20;

/// Tokens of a continuation by default, as in OpenAI's API.
pub(super) const DEFAULT_MAX_TOKENS: usize = 16;

request! {
    /// What to continue, and how.
    CompletionRequest {
        /// Name of the model. May be left out if the server has one model.
        model: Option<String>,
        /// A text, a list of texts, token ids, or a list of token ids. Control tokens in a text are text.
        #[schema(value_type = Prompts)]
        prompt: Prompts,
        /// Most tokens of the continuation; 16 by default. 0 together with `echo` only.
        max_tokens: Option<u64>,
        /// Whether the prompt is part of the text, and of the log-probabilities. False by default.
        echo: Option<bool>,
        /// Reports the log-probabilities of the tokens, with so many of the most probable ones in the place of each, at most 20.
        #[schema(maximum = 20)]
        logprobs: Option<usize>,
        /// So many choices are generated, and the `n` best ones by their mean log-probability returned. `n` by default.
        #[schema(minimum = 1)]
        best_of: Option<usize>,
        /// Refused: the model does not fill in.
        #[schema(value_type = Option<String>)]
        suffix: Option<Value>,
        /// Whether the tokenizer adds what begins a text, such as the begin-of-sequence token. True by default.
        add_special_tokens: Option<bool>,
    }
}

/// The prompts of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Prompts {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids.
    Tokens(Vec<u32>),
    /// Token ids of several prompts.
    TokenLists(Vec<Vec<u32>>),
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let kind = match &value {
            Value::String(_) => "a text",
            Value::Array(items) => match items.first() {
                Some(Value::String(_)) => "a list of texts",
                Some(Value::Number(_)) => "token ids",
                Some(Value::Array(_)) => "a list of token ids",
                Some(_) => "a list of something else",
                None => "an empty list",
            },
            _ => "something else",
        };
        let parsed = match kind {
            "a text" => serde_json::from_value(value).map(Prompts::Text),
            "a list of texts" => serde_json::from_value(value).map(Prompts::Texts),
            "token ids" => serde_json::from_value(value).map(Prompts::Tokens),
            "a list of token ids" => serde_json::from_value(value).map(Prompts::TokenLists),
            other => {
                let expected = "expected a text, a list of texts, token ids, or a list of token ids";
                return Err(serde::de::Error::custom(format!("found {other}, {expected}")));
            }
        };
        parsed.map_err(|error| serde::de::Error::custom(format!("{kind}: {error}")))
    }
}

impl CompletionRequest {
    /// Refuses what is not honoured, and values that contradict each other.
    pub(super) fn check(&self) -> ApiResult<()> {
        self.common().check()?;
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_null()) {
            return Err(ApiError::unsupported(
                "suffix",
                "leave it out: the model continues texts, and fills none in",
            ));
        }
        if let Some(logprobs) = self.logprobs
            && logprobs > MAX_LOGPROBS
        {
            let message = format!("logprobs is {logprobs}, expected at most {MAX_LOGPROBS}");
            return Err(ApiError::invalid("logprobs", message));
        }
        if self.max_tokens == Some(0) && !self.echoes() {
            return Err(ApiError::invalid("max_tokens", "max_tokens is 0, expected at least 1")
                .with_advice("set echo to get the log-probabilities of the prompt alone"));
        }
        let (choices, best_of) = (self.common().choices(), self.best_of());
        if best_of < choices {
            return Err(ApiError::invalid(
                "best_of",
                format!("best_of is {best_of}, expected at least n, {choices}"),
            ));
        }
        if best_of > choices && self.stream == Some(true) {
            return Err(ApiError::invalid(
                "best_of",
                "the best choices are known at the end only, so they cannot be streamed",
            ));
        }
        Ok(())
    }

    pub(super) fn echoes(&self) -> bool {
        self.echo == Some(true)
    }

    pub(super) fn generates(&self) -> bool {
        self.max_tokens != Some(0)
    }

    /// Choices that are generated for each prompt.
    pub(super) fn best_of(&self) -> usize {
        self.best_of.unwrap_or_else(|| self.common().choices())
    }

    /// Whether the best choices are to be found.
    pub(super) fn selects(&self) -> bool {
        self.best_of() > self.common().choices()
    }
}
