//! The request of a response, and what of it is not honoured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::input::ResponseInput;
use crate::config::Limits;
use crate::engine::ConstraintKind;
use crate::error::{ApiError, ApiResult};
use crate::generation::SamplingFields;

/// Most tokens to report in the place of each token.
const MAX_TOP_LOGPROBS: usize = 20;

/// Sizes of metadata, as in the specification.
const METADATA: (usize, usize, usize) = (16, 64, 512);

/// What `include` has if log-probabilities are to be reported.
const LOGPROBS: &str = "message.output_text.logprobs";

/// What to answer, and how. Responses are not stored: a conversation is sent whole. Control tokens in texts are text.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseRequest {
    /// Name of a model whose task is `causal-lm`. May be left out if the server has one model.
    pub(super) model: Option<String>,
    /// A text, which is a message of the user, or a list of messages.
    pub(super) input: ResponseInput,
    /// A message of the system in front of the others.
    pub(super) instructions: Option<String>,
    /// Most tokens of the answer; by default as many as there is place for.
    #[schema(minimum = 1)]
    pub(super) max_output_tokens: Option<u64>,
    /// Divides the logits; 0 takes the most probable token. By default that of the checkpoint, or 1.
    #[schema(minimum = 0)]
    pub(super) temperature: Option<f64>,
    /// Draws from the fewest most probable tokens with this total probability. By default that of the checkpoint, or 1.
    #[schema(minimum = 0, maximum = 1)]
    pub(super) top_p: Option<f64>,
    /// What the logit of a token loses if the answer has it. 0 by default.
    pub(super) presence_penalty: Option<f64>,
    /// What the logit of a token loses for each time that the answer has it. 0 by default.
    pub(super) frequency_penalty: Option<f64>,
    /// What the text of the answer must be like.
    pub(super) text: Option<TextFields>,
    /// Whether the answer comes as server-sent events. False by default.
    pub(super) stream: Option<bool>,
    /// How it comes so.
    pub(super) stream_options: Option<ResponseStreamOptions>,
    /// Most probable tokens to report in the place of each token, from 0 to 20.
    #[schema(minimum = 0, maximum = 20)]
    pub(super) top_logprobs: Option<usize>,
    /// `message.output_text.logprobs` reports the log-probability of each token. Others concern tools and reasoning, which there
    /// are not, and are refused.
    pub(super) include: Option<Vec<String>>,
    /// Returned in the response.
    pub(super) metadata: Option<BTreeMap<String, String>>,
    /// Only `disabled`, the default, is supported: an input that is too long is an error.
    pub(super) truncation: Option<String>,
    /// Only false is supported. Without it responses are not stored either.
    pub(super) store: Option<bool>,
    /// Only false, the default, is supported.
    pub(super) background: Option<bool>,
    /// Not supported: responses are not stored.
    pub(super) previous_response_id: Option<String>,
    /// Not supported: responses are not stored.
    #[schema(value_type = Option<Object>)]
    pub(super) conversation: Option<Value>,
    /// Not supported: prompts are not stored.
    #[schema(value_type = Option<Object>)]
    pub(super) prompt: Option<Value>,
    /// Only an empty list is supported.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) tools: Option<Vec<Value>>,
    /// Only `none` and `auto` are supported, which are the same without tools.
    #[schema(value_type = Option<String>)]
    pub(super) tool_choice: Option<Value>,
    /// Accepted and returned; has no effect without tools.
    pub(super) parallel_tool_calls: Option<bool>,
    /// Accepted and returned; has no effect without tools.
    pub(super) max_tool_calls: Option<u64>,
    /// Only the effort `none` is supported: models do not reason apart from their answer.
    pub(super) reasoning: Option<ReasoningFields>,
    /// Only `auto` and `default` are supported.
    pub(super) service_tier: Option<String>,
    /// Accepted and returned; has no effect.
    pub(super) safety_identifier: Option<String>,
    /// Accepted and returned; has no effect: prefixes are reused whoever sends them.
    pub(super) prompt_cache_key: Option<String>,
    /// Accepted and returned; has no effect.
    pub(super) user: Option<String>,
}

/// What the text of an answer must be like.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextFields {
    /// The form; any text by default.
    pub(super) format: Option<TextFormat>,
    /// Only `medium`, the default, is supported.
    pub(super) verbosity: Option<String>,
}

/// The form of a text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum TextFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that is valid by a schema.
    JsonSchema {
        /// A name; it has no effect.
        name: String,
        /// A description; it has no effect, because no template shows it to the model.
        description: Option<String>,
        /// The schema.
        #[schema(value_type = Object)]
        schema: Value,
        /// Accepted with either value: the schema always holds.
        strict: Option<bool>,
    },
}

/// How an answer comes as server-sent events.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseStreamOptions {
    /// Whether parts of text have a field `obfuscation` with random characters. Only false, the default, is supported.
    pub(super) include_obfuscation: Option<bool>,
}

/// How a model reasons.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasoningFields {
    /// Only `none` is supported.
    pub(super) effort: Option<String>,
    /// Not supported.
    pub(super) summary: Option<String>,
}

impl ResponseRequest {
    /// Refuses what is not honoured.
    ///
    /// # Errors
    /// Status 400 for the first such field, with advice.
    pub(super) fn check(&self) -> ApiResult<()> {
        self.check_state()?;
        self.check_tools()?;
        self.check_text()?;
        self.check_metadata()?;
        if let Some(tier) = self.service_tier.as_deref()
            && !matches!(tier, "auto" | "default")
        {
            return Err(ApiError::unsupported("service_tier", "leave it out: there is one tier"));
        }
        match self.top_logprobs {
            Some(count) if count > MAX_TOP_LOGPROBS => {
                let message = format!("top_logprobs is {count}, expected 0 to {MAX_TOP_LOGPROBS}");
                Err(ApiError::invalid("top_logprobs", message))
            }
            _ => Ok(()),
        }
    }

    /// What needs stored responses.
    fn check_state(&self) -> ApiResult<()> {
        const WHOLE: &str =
            "leave it out, and send the whole conversation in input: responses are not stored";
        let fields = [
            ("previous_response_id", self.previous_response_id.is_some(), WHOLE),
            ("conversation", self.conversation.is_some(), WHOLE),
            ("store", self.store == Some(true), "set it to false, or leave it out: responses are not stored"),
            (
                "background",
                self.background == Some(true),
                "leave it out, and wait for the response or stream it",
            ),
            (
                "prompt",
                self.prompt.is_some(),
                "leave it out, and send the text in input: prompts are not stored",
            ),
            (
                "truncation",
                self.truncation.as_deref().is_some_and(|truncation| truncation != "disabled"),
                "leave it out, and shorten the input: nothing of it is left out silently",
            ),
        ];
        refuse(fields)
    }

    fn check_tools(&self) -> ApiResult<()> {
        let chooses = |choice: &Value| !matches!(choice.as_str(), Some("none" | "auto"));
        let effort = self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
        refuse([
            (
                "tools",
                self.tools.as_ref().is_some_and(|tools| !tools.is_empty()),
                "leave it out: this route answers with text",
            ),
            (
                "tool_choice",
                self.tool_choice.as_ref().is_some_and(chooses),
                "leave it out: there are no tools",
            ),
            (
                "reasoning.effort",
                effort.is_some_and(|effort| effort != "none"),
                "leave it out: the model does not reason apart from its answer",
            ),
            (
                "reasoning.summary",
                self.reasoning.as_ref().is_some_and(|reasoning| reasoning.summary.is_some()),
                "leave it out: the model does not reason apart from its answer",
            ),
        ])
    }

    fn check_text(&self) -> ApiResult<()> {
        let verbosity = self.text.as_ref().and_then(|text| text.verbosity.as_deref());
        let others = self.include.iter().flatten().any(|include| include != LOGPROBS);
        let obfuscation = self.stream_options.as_ref().and_then(|options| options.include_obfuscation);
        refuse([
            (
                "text.verbosity",
                verbosity.is_some_and(|verbosity| verbosity != "medium"),
                "leave it out, and ask for a short or long answer in the instructions",
            ),
            (
                "include",
                others,
                "leave out all but message.output_text.logprobs: there are no tools and no reasoning",
            ),
            ("stream_options.include_obfuscation", obfuscation == Some(true), "leave it out"),
        ])?;
        if self.stream_options.is_some() && !self.streams() {
            return Err(ApiError::invalid(
                "stream_options",
                "stream_options is for answers with stream true",
            ));
        }
        Ok(())
    }

    fn check_metadata(&self) -> ApiResult<()> {
        let (pairs, key_length, value_length) = METADATA;
        let Some(metadata) = &self.metadata else { return Ok(()) };
        if metadata.len() > pairs {
            let message = format!("metadata has {} keys, expected at most {pairs}", metadata.len());
            return Err(ApiError::invalid("metadata", message));
        }
        for (key, value) in metadata {
            if key.chars().count() > key_length || value.chars().count() > value_length {
                let message = format!(
                    "metadata has keys of at most {key_length} and values of at most {value_length} characters"
                );
                return Err(ApiError::invalid("metadata", message));
            }
        }
        Ok(())
    }

    /// Refuses a length that is not possible.
    ///
    /// # Errors
    /// Status 400.
    pub(super) fn check_length(&self, limits: &Limits) -> ApiResult<()> {
        let limit = limits.max_tokens.map_or(u64::MAX, |limit| limit as u64);
        let invalid = |found: u64, expected: String| {
            let message = format!("max_output_tokens is {found}, expected {expected}");
            Err(ApiError::invalid("max_output_tokens", message))
        };
        match self.max_output_tokens {
            Some(0) => invalid(0, "at least 1".to_owned()),
            Some(tokens) if tokens > limit => invalid(tokens, format!("at most {limit}")),
            _ => Ok(()),
        }
    }

    pub(super) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// How many probable tokens are reported in the place of each; `None` if nothing is reported.
    pub(super) fn logprobs(&self) -> Option<usize> {
        let is_included = self.include.iter().flatten().any(|include| include == LOGPROBS);
        match self.top_logprobs {
            Some(count) if count > 0 || is_included => Some(count),
            _ => is_included.then_some(0),
        }
    }

    pub(super) fn format(&self) -> TextFormat {
        self.text.as_ref().and_then(|text| text.format.clone()).unwrap_or_default()
    }

    pub(super) fn sampling_fields(&self) -> SamplingFields {
        SamplingFields {
            max_tokens: self.max_output_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            log_probabilities: self.logprobs(),
            ..SamplingFields::default()
        }
    }
}

impl TextFormat {
    /// What the text must be like; `None` for any text.
    pub(super) fn constraint(&self) -> Option<ConstraintKind> {
        match self {
            TextFormat::Text => None,
            TextFormat::JsonObject => Some(ConstraintKind::JsonObject),
            TextFormat::JsonSchema { schema, .. } => Some(ConstraintKind::JsonSchema(schema.clone())),
        }
    }
}

/// Refuses the first field that is set.
fn refuse<const N: usize>(fields: [(&'static str, bool, &'static str); N]) -> ApiResult<()> {
    match fields.into_iter().find(|(_, is_set, _)| *is_set) {
        None => Ok(()),
        Some((field, _, advice)) => Err(ApiError::unsupported(field, advice)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ResponseRequest, TextFormat};
    use crate::error::ApiResult;

    fn read(fields: &Value) -> ApiResult<ResponseRequest> {
        let mut request = json!({"input": "Hello"});
        for (name, value) in fields.as_object().unwrap() {
            request[name] = value.clone();
        }
        let request: ResponseRequest = crate::json::parse(request.to_string().as_bytes())?;
        request.check()?;
        Ok(request)
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        for (fields, param) in [
            (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"conversation": "conv_1"}), "conversation"),
            (json!({"store": true}), "store"),
            (json!({"background": true}), "background"),
            (json!({"prompt": {"id": "x"}}), "prompt"),
            (json!({"truncation": "auto"}), "truncation"),
            (json!({"tools": [{"type": "function", "name": "f"}]}), "tools"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tool_choice": {"type": "function", "name": "f"}}), "tool_choice"),
            (json!({"reasoning": {"effort": "high"}}), "reasoning.effort"),
            (json!({"reasoning": {"summary": "auto"}}), "reasoning.summary"),
            (json!({"text": {"verbosity": "low"}}), "text.verbosity"),
            (json!({"include": ["reasoning.encrypted_content"]}), "include"),
            (
                json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
                "stream_options.include_obfuscation",
            ),
            (json!({"stream_options": {}}), "stream_options"),
            (json!({"service_tier": "flex"}), "service_tier"),
            (json!({"top_logprobs": 21}), "top_logprobs"),
            (json!({"metadata": {"k": "v".repeat(513)}}), "metadata"),
            (json!({"background_options": {}}), "background_options"),
            (json!({"text": {"format": {"type": "json_schema", "name": "x"}}}), "text.format.schema"),
        ] {
            let error = read(&fields).unwrap_err();
            assert_eq!((error.status().as_u16(), error.param()), (400, Some(param)), "{fields}: {error:?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_accepted() {
        let fields = json!({
            "store": false, "background": false, "truncation": "disabled", "tools": [], "tool_choice": "auto",
            "parallel_tool_calls": true, "max_tool_calls": 3, "reasoning": {"effort": "none"}, "service_tier": "auto",
            "safety_identifier": "x", "prompt_cache_key": "x", "user": "x", "text": {"verbosity": "medium"},
            "metadata": {"k": "v"}, "instructions": null, "temperature": null, "previous_response_id": null,
        });
        read(&fields).unwrap();
    }

    #[test]
    fn log_probabilities_are_reported_if_they_are_included_or_counted() {
        let include = json!(["message.output_text.logprobs"]);
        assert_eq!(read(&json!({})).unwrap().logprobs(), None);
        assert_eq!(read(&json!({"top_logprobs": 0})).unwrap().logprobs(), None);
        assert_eq!(read(&json!({"top_logprobs": 3})).unwrap().logprobs(), Some(3));
        assert_eq!(read(&json!({"include": include})).unwrap().logprobs(), Some(0));
        assert_eq!(read(&json!({"include": include, "top_logprobs": 2})).unwrap().logprobs(), Some(2));
    }

    #[test]
    fn a_schema_is_read_in_the_form_of_the_route() {
        let format =
            json!({"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": true});
        let request = read(&json!({"text": {"format": format}})).unwrap();
        assert!(matches!(request.format(), TextFormat::JsonSchema { strict: Some(true), .. }));
        assert_eq!(read(&json!({})).unwrap().format(), TextFormat::Text);
    }
}
