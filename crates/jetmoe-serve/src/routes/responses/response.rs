//! The response object, and the message that it holds.

use std::collections::BTreeMap;

use jetmoe_rt::{GenerationOptions, LogProbabilities, Sampling};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::input::MessageStatus;
use super::request::{ResponseRequest, TextFormat};
use crate::error::ApiError;
use crate::generation::{TokenTexts, Usage};

/// A response.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    pub(super) id: String,
    /// `response`.
    object: &'static str,
    /// In seconds since 1970.
    created_at: u64,
    completed_at: Option<u64>,
    pub(super) status: ResponseStatus,
    incomplete_details: Option<IncompleteDetails>,
    /// The model that answered.
    model: String,
    previous_response_id: Option<String>,
    instructions: Option<String>,
    output: Vec<OutputMessage>,
    error: Option<ResponseFailure>,
    #[schema(value_type = Vec<Object>)]
    tools: [Value; 0],
    /// `none` or `auto`.
    tool_choice: String,
    /// `disabled`.
    truncation: &'static str,
    parallel_tool_calls: bool,
    text: TextEcho,
    top_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    top_logprobs: usize,
    /// 0 if the most probable token is taken.
    temperature: f64,
    #[schema(value_type = Option<Object>)]
    reasoning: Option<Value>,
    usage: Option<ResponseUsage>,
    max_output_tokens: Option<u64>,
    max_tool_calls: Option<u64>,
    /// False: responses are not stored.
    store: bool,
    /// False.
    background: bool,
    /// `default`.
    service_tier: &'static str,
    metadata: BTreeMap<String, String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    user: Option<String>,
}

/// Where a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResponseStatus {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// Why a response is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct IncompleteDetails {
    /// `max_output_tokens`, also for all positions of the model, or `deadline`.
    pub(super) reason: &'static str,
}

/// Why a response failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct ResponseFailure {
    code: String,
    message: String,
}

/// The form of the text.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct TextEcho {
    format: TextFormat,
    /// `medium`.
    verbosity: &'static str,
}

/// Tokens of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ResponseUsage {
    /// Tokens of the conversation, with those of the template.
    input_tokens: usize,
    input_tokens_details: InputTokensDetails,
    /// Tokens of the answer, that of its end included.
    output_tokens: usize,
    output_tokens_details: OutputTokensDetails,
    /// Both.
    total_tokens: usize,
}

/// Tokens of the input by what was done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct InputTokensDetails {
    /// Tokens that were reused from earlier requests.
    cached_tokens: usize,
}

/// Tokens of the output by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct OutputTokensDetails {
    /// 0.
    reasoning_tokens: usize,
}

/// The message of a response.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct OutputMessage {
    /// `message`.
    #[serde(rename = "type")]
    item_type: &'static str,
    pub(super) id: String,
    status: MessageStatus,
    /// `assistant`.
    role: &'static str,
    content: Vec<OutputText>,
}

/// The text of a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct OutputText {
    /// `output_text`.
    #[serde(rename = "type")]
    part_type: &'static str,
    text: String,
    #[schema(value_type = Vec<Object>)]
    annotations: [Value; 0],
    /// Of every generated token, that of the end included; empty unless they were asked for.
    logprobs: Vec<ResponseLogprob>,
}

/// The log-probability of a token.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct ResponseLogprob {
    /// Its text. One that is no whole text has the form `bytes:\xe2`.
    token: String,
    /// The bytes that it adds to the text; none for a special token.
    bytes: Vec<u8>,
    logprob: f64,
    /// The most probable tokens in its place.
    top_logprobs: Vec<ResponseTopLogprob>,
}

/// The log-probability of a token that could have been there.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ResponseTopLogprob {
    token: String,
    bytes: Vec<u8>,
    logprob: f64,
}

/// What a response says of its request, and its ids.
#[derive(Debug, Clone)]
pub(super) struct Head {
    blank: ResponseObject,
    message_id: String,
}

impl Head {
    /// Of a request to a model, with the options that its fields gave.
    pub(super) fn new(request: &ResponseRequest, model: &str, options: &GenerationOptions) -> Self {
        let (temperature, top_p) = match options.sampling {
            Sampling::Multinomial(multinomial) => (multinomial.temperature, multinomial.top_p.unwrap_or(1.0)),
            _ => (0.0, request.top_p.unwrap_or(1.0) as f32),
        };
        let chosen = request.tool_choice.as_ref().and_then(Value::as_str);
        let blank = ResponseObject {
            id: super::super::ids::new("resp"),
            object: "response",
            created_at: crate::registry::now(),
            completed_at: None,
            status: ResponseStatus::InProgress,
            incomplete_details: None,
            model: model.to_owned(),
            previous_response_id: None,
            instructions: request.instructions.clone(),
            output: Vec::new(),
            error: None,
            tools: [],
            tool_choice: chosen.unwrap_or("auto").to_owned(),
            truncation: "disabled",
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            text: TextEcho { format: request.format(), verbosity: "medium" },
            top_p: shortest(top_p),
            presence_penalty: shortest(options.presence_penalty),
            frequency_penalty: shortest(options.frequency_penalty),
            top_logprobs: request.top_logprobs.unwrap_or(0),
            temperature: shortest(temperature),
            reasoning: request
                .reasoning
                .as_ref()
                .map(|reasoning| json!({"effort": reasoning.effort, "summary": null})),
            usage: None,
            max_output_tokens: request.max_output_tokens,
            max_tool_calls: request.max_tool_calls,
            store: false,
            background: false,
            service_tier: "default",
            metadata: request.metadata.clone().unwrap_or_default(),
            safety_identifier: request.safety_identifier.clone(),
            prompt_cache_key: request.prompt_cache_key.clone(),
            user: request.user.clone(),
        };
        Head { blank, message_id: super::super::ids::new("msg") }
    }

    /// The id of the message.
    pub(super) fn message_id(&self) -> &str {
        &self.message_id
    }

    /// The message, with its text if it has begun.
    pub(super) fn message(&self, status: MessageStatus, text: Option<OutputText>) -> OutputMessage {
        OutputMessage {
            item_type: "message",
            id: self.message_id.clone(),
            status,
            role: "assistant",
            content: text.into_iter().collect(),
        }
    }

    /// The response while it is computed.
    pub(super) fn in_progress(&self) -> ResponseObject {
        self.blank.clone()
    }

    /// The response at its end; why it is incomplete, if it is.
    pub(super) fn complete(
        &self,
        message: OutputMessage,
        incomplete: Option<IncompleteDetails>,
        usage: Usage,
    ) -> ResponseObject {
        let status = match incomplete {
            None => ResponseStatus::Completed,
            Some(_) => ResponseStatus::Incomplete,
        };
        ResponseObject {
            status,
            completed_at: incomplete.is_none().then(crate::registry::now),
            incomplete_details: incomplete,
            output: vec![message],
            usage: Some(usage.into()),
            ..self.blank.clone()
        }
    }

    /// The response after an error.
    pub(super) fn failed(
        &self,
        message: Option<OutputMessage>,
        error: &ApiError,
        usage: Usage,
    ) -> ResponseObject {
        let error = ResponseFailure { code: error.code().to_owned(), message: error.message().to_owned() };
        ResponseObject {
            status: ResponseStatus::Failed,
            error: Some(error),
            output: message.into_iter().collect(),
            usage: Some(usage.into()),
            ..self.blank.clone()
        }
    }
}

/// A number that is printed as short as the float32 is.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl OutputText {
    pub(super) fn new(text: String, logprobs: Vec<ResponseLogprob>) -> Self {
        OutputText { part_type: "output_text", text, annotations: [], logprobs }
    }
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: 0 },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}

impl ResponseLogprob {
    /// Of a generated token.
    pub(super) fn new(texts: &TokenTexts, id: u32, found: &LogProbabilities) -> Self {
        let top = found.best.iter().map(|best| ResponseTopLogprob {
            token: texts.text(best.token_id),
            bytes: texts.bytes(best.token_id).unwrap_or_default().to_vec(),
            logprob: finite(best.log_probability),
        });
        ResponseLogprob {
            token: texts.text(id),
            bytes: texts.bytes(id).unwrap_or_default().to_vec(),
            logprob: finite(found.chosen),
            top_logprobs: top.collect(),
        }
    }
}

/// A log-probability that JSON has: −9999, as OpenAI's API writes it, for negative infinity.
fn finite(value: f32) -> f64 {
    if value.is_finite() { f64::from(value) } else { -9999.0 }
}
