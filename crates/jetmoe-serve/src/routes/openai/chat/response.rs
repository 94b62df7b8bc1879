//! The answers of chat completions, and the log-probabilities in their form.

use jetmoe_rt::TokenEvent;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::choice::{Experts, Finish};
use super::super::completions::finite;
use super::super::usage::Usage;
use super::tools::ToolCall;
use crate::generation::TokenTexts;

/// The answers to a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatCompletion {
    /// An id of the answer.
    pub(super) id: String,
    /// `chat.completion`.
    pub(super) object: &'static str,
    /// When it began, in seconds since 1970.
    pub(super) created: u64,
    /// Name of the model.
    pub(super) model: String,
    /// The choices.
    pub(super) choices: Vec<ChatChoice>,
    /// Tokens of the request.
    pub(super) usage: Usage,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatChoice {
    /// Its index.
    pub(super) index: usize,
    pub(super) message: AnswerMessage,
    /// Log-probabilities, if they are requested.
    pub(super) logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub(super) finish_reason: Option<Finish>,
    /// Why exactly: `end-token`, `stop-string`, `max-new-tokens`, `max-positions` or `deadline`.
    pub(super) finish_detail: Option<String>,
    /// For each token the experts that the token before it took, `[layers][2: attention, MLP][k]`, if they are requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<Vec<Vec<u32>>>>>)]
    pub(super) experts: Option<Vec<Experts>>,
}

/// The message of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct AnswerMessage {
    /// `assistant`.
    pub(super) role: &'static str,
    /// The text; null if it calls a tool.
    pub(super) content: Option<String>,
    /// Null: the model has no refusals of its own.
    pub(super) refusal: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
}

/// A part of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatChunk {
    /// The id of the answer.
    pub(super) id: String,
    /// `chat.completion.chunk`.
    pub(super) object: &'static str,
    /// When the answer began, in seconds since 1970.
    pub(super) created: u64,
    /// Name of the model.
    pub(super) model: String,
    /// One choice; none in the chunk with the usage.
    pub(super) choices: Vec<ChunkChoice>,
    /// Tokens of the request, in the last chunk, if it is requested; null in the others then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub(super) usage: Option<Option<Usage>>,
}

/// A part of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ChunkChoice {
    /// Index of the choice.
    pub(super) index: usize,
    pub(super) delta: ChatDelta,
    /// Log-probabilities of the tokens of this part, if they are requested.
    pub(super) logprobs: Option<ChatLogprobs>,
    /// Why the answer ended, in its last part.
    pub(super) finish_reason: Option<Finish>,
    /// Why exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finish_detail: Option<String>,
    /// As of a whole answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<Vec<Vec<u32>>>>>)]
    pub(super) experts: Option<Vec<Experts>>,
}

/// What a part adds to the message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ChatDelta {
    /// `assistant`, in the first part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
}

/// Log-probabilities of the tokens of a text.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ChatLogprobs {
    /// The tokens, the end-of-sequence token included.
    pub(super) content: Vec<ChatTokenLogprob>,
    /// Null: the model has no refusals of its own.
    pub(super) refusal: Option<Vec<ChatTokenLogprob>>,
}

/// A token and its log-probability.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatTokenLogprob {
    #[serde(flatten)]
    token: ChatToken,
    /// The most probable tokens in its place.
    top_logprobs: Vec<ChatToken>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
struct ChatToken {
    /// Its text. One that is no whole text has the form `bytes:\xe2`.
    token: String,
    /// Its log-probability; −9999 for a token that cannot follow.
    logprob: f64,
    /// The bytes that it adds to the text; null for a special token.
    bytes: Option<Vec<u8>>,
}

impl ChatToken {
    fn new(texts: &TokenTexts, id: u32, log_probability: f32) -> Self {
        ChatToken {
            token: texts.text(id),
            logprob: finite(log_probability),
            bytes: texts.bytes(id).map(<[u8]>::to_vec),
        }
    }
}

impl ChatLogprobs {
    /// The log-probabilities of a token.
    pub(super) fn of(texts: &TokenTexts, token: &TokenEvent) -> Self {
        let Some(scores) = &token.log_probabilities else { return Self::default() };
        let best = scores.best.iter();
        let logprob = ChatTokenLogprob {
            token: ChatToken::new(texts, token.token_id, scores.chosen),
            top_logprobs: best
                .map(|best| ChatToken::new(texts, best.token_id, best.log_probability))
                .collect(),
        };
        ChatLogprobs { content: vec![logprob], refusal: None }
    }
}
