//! The fields of chat completions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::messages::Message;
use super::tools::{Tool, ToolChoice};
use crate::error::{ApiError, ApiResult};
use crate::generation::request;

/// Most tokens in the place of a token that are reported.
const MAX_TOP_LOGPROBS: usize = 20;

/// Most entries of `metadata`, as in OpenAI's API.
const MAX_METADATA: usize = 16;

request! {
    /// A conversation to answer, and how.
    ChatRequest {
        /// Name of the model. May be left out if the server has one model.
        model: Option<String>,
        /// The conversation. Control tokens in messages are text.
        messages: Vec<Message>,
        /// Most tokens of the answer; as many as there is place for by default.
        #[schema(minimum = 1)]
        max_completion_tokens: Option<u64>,
        /// The former name of `max_completion_tokens`.
        #[schema(minimum = 1)]
        max_tokens: Option<u64>,
        /// Whether log-probabilities of the tokens are reported. False by default.
        logprobs: Option<bool>,
        /// So many of the most probable tokens in the place of each, at most 20, together with `logprobs`.
        #[schema(maximum = 20)]
        top_logprobs: Option<usize>,
        /// Functions that the answer may call, if the chat template of the model takes tools.
        tools: Option<Vec<Tool>>,
        /// Whether a function is called: `none`, `required`, or a function. `auto` is refused, because no format of calls is known.
        tool_choice: Option<ToolChoice>,
        /// Accepted together with `tools`: an answer has one call.
        parallel_tool_calls: Option<bool>,
        /// Variables of the chat template.
        chat_template_kwargs: Option<Map<String, Value>>,
        /// Whether the prompt ends where the answer begins. True by default.
        add_generation_prompt: Option<bool>,
        /// Honoured if the chat template reads it; else `none` only.
        reasoning_effort: Option<String>,
        /// Honoured if the chat template reads it; else `medium` only.
        verbosity: Option<String>,
        /// Accepted; has no effect, because prefixes are found by their tokens.
        #[allow(dead_code, reason = "prefixes are found by their tokens, and no result depends on it")]
        prompt_cache_key: Option<String>,
        /// `in_memory` only, which is how prefixes are kept.
        prompt_cache_retention: Option<String>,
        /// Identifies an end user. Accepted; has no effect.
        #[allow(dead_code, reason = "identifies an end user, and no result depends on it")]
        safety_identifier: Option<String>,
        /// `auto` or `default` only, which are the same.
        service_tier: Option<String>,
        /// False only: nothing is stored.
        store: Option<bool>,
        /// Accepted; has no effect, because nothing is stored. At most 16 entries.
        metadata: Option<BTreeMap<String, String>>,
        /// `["text"]` only.
        modalities: Option<Vec<String>>,
        /// Refused.
        #[schema(value_type = Option<Object>)]
        audio: Option<Value>,
        /// Refused.
        #[schema(value_type = Option<Object>)]
        prediction: Option<Value>,
        /// Refused.
        #[schema(value_type = Option<Object>)]
        web_search_options: Option<Value>,
        /// Refused; use `tools`.
        #[schema(value_type = Option<Vec<Object>>)]
        functions: Option<Value>,
        /// Refused; use `tool_choice`.
        #[schema(value_type = Option<Object>)]
        function_call: Option<Value>,
    }
}

impl ChatRequest {
    /// Refuses what is not honoured, and values that contradict each other.
    pub(super) fn check(&self) -> ApiResult<()> {
        self.common().check()?;
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "messages is empty, expected at least one message"));
        }
        self.check_unsupported()?;
        self.check_values()?;
        self.check_logprobs()
    }

    fn check_unsupported(&self) -> ApiResult<()> {
        let fields = [
            ("audio", &self.audio, "leave it out: the model reads and writes text"),
            ("prediction", &self.prediction, "leave it out: answers do not depend on it"),
            ("web_search_options", &self.web_search_options, "leave it out: the model has no search"),
            ("functions", &self.functions, "use tools"),
            ("function_call", &self.function_call, "use tool_choice"),
        ];
        let is_set =
            |(_, value, _): &(&str, &Option<Value>, &str)| value.as_ref().is_some_and(|it| !it.is_null());
        match fields.into_iter().find(is_set) {
            None => Ok(()),
            Some((field, _, advice)) => Err(ApiError::unsupported(field, advice)),
        }
    }

    /// Fields of which some values are what the server does anyway.
    fn check_values(&self) -> ApiResult<()> {
        let texts: [(&str, &Option<String>, &[&str]); 2] = [
            ("prompt_cache_retention", &self.prompt_cache_retention, &["in_memory", "in-memory"]),
            ("service_tier", &self.service_tier, &["auto", "default"]),
        ];
        for (field, value, supported) in texts {
            if let Some(value) = value
                && !supported.contains(&value.as_str())
            {
                return Err(unsupported_value(field, value, supported[0]));
            }
        }
        if self.store == Some(true) {
            return Err(ApiError::unsupported("store", "leave it out: the server stores no answers"));
        }
        if let Some(modalities) = &self.modalities
            && modalities != &["text"]
        {
            return Err(ApiError::unsupported("modalities", "the model writes text only"));
        }
        if let Some(metadata) = &self.metadata
            && metadata.len() > MAX_METADATA
        {
            let message = format!("metadata has {} entries, expected at most {MAX_METADATA}", metadata.len());
            return Err(ApiError::invalid("metadata", message));
        }
        Ok(())
    }

    fn check_logprobs(&self) -> ApiResult<()> {
        let Some(count) = self.top_logprobs else { return Ok(()) };
        if self.logprobs != Some(true) {
            return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs true"));
        }
        if count > MAX_TOP_LOGPROBS {
            let message = format!("top_logprobs is {count}, expected at most {MAX_TOP_LOGPROBS}");
            return Err(ApiError::invalid("top_logprobs", message));
        }
        Ok(())
    }

    /// Most tokens of the answer.
    pub(super) fn max_tokens(&self) -> ApiResult<Option<u64>> {
        let (name, tokens) = match (self.max_completion_tokens, self.max_tokens) {
            (Some(tokens), Some(former)) if tokens != former => {
                let message = format!(
                    "max_tokens is {former}, and max_completion_tokens {tokens}, expected one of them"
                );
                return Err(ApiError::invalid("max_tokens", message));
            }
            (Some(tokens), _) => ("max_completion_tokens", Some(tokens)),
            (None, tokens) => ("max_tokens", tokens),
        };
        match tokens {
            Some(0) => Err(ApiError::invalid(name, format!("{name} is 0, expected at least 1"))),
            tokens => Ok(tokens),
        }
    }

    /// How many of the most probable tokens are reported; `None` without log-probabilities.
    pub(super) fn log_probabilities(&self) -> Option<usize> {
        (self.logprobs == Some(true)).then(|| self.top_logprobs.unwrap_or(0))
    }
}

/// A value of a field whose other values are honoured.
pub(super) fn unsupported_value(field: &str, value: &str, supported: &str) -> ApiError {
    ApiError::unsupported(field, format!("leave it out, or set it to {supported}; it is {value:?}"))
}
