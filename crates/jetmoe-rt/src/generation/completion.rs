//! What a generation returns: events while it runs, and a completion for every prompt.

use std::time::Duration;

use super::LogProbabilities;

/// Why a continuation ended. `Display` gives the name that the JSON output uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model generated an end-of-sequence token.
    #[strum(to_string = "end-token")]
    Eos,
    /// The text contains a stop string.
    #[strum(to_string = "stop-string")]
    StopString,
    /// `max_new_tokens` tokens were generated.
    #[strum(to_string = "max-new-tokens")]
    Length,
    /// Prompt and continuation fill all positions of the model.
    #[strum(to_string = "max-positions")]
    ContextFull,
    /// The caller ended the generation.
    #[strum(to_string = "cancelled")]
    Cancelled,
    /// The request's deadline passed.
    #[strum(to_string = "deadline")]
    Deadline,
    /// A step failed; the stream returned the error.
    #[strum(to_string = "failed")]
    Failed,
}

/// One step forward of one sequence.
///
/// The texts of a sequence's events, concatenated, are its text. Its last event, and no other, has a finish reason.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Index in the request of the prompt that it continues.
    pub sequence: usize,
    /// The generated token. `None` if the sequence ended without one: it was cancelled, or its prompt fills all positions.
    pub token: Option<TokenEvent>,
    /// Text that can no longer change; it never splits a character. Often empty: an end-of-sequence token has no text, and text
    /// is held back while it may be the start of a stop string. Always empty for a model without a tokenizer.
    pub text: String,
    /// Set for the last event of the sequence.
    pub finish_reason: Option<FinishReason>,
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenEvent {
    /// Its index in the continuation.
    pub index: usize,
    /// Its id.
    pub token_id: u32,
    /// How probable it was, if [`GenerationOptions::log_probabilities`](crate::GenerationOptions) requests it.
    pub log_probabilities: Option<LogProbabilities>,
}

/// The continuation of one prompt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Completion {
    /// The text after the prompt, with its leading space if there is one; without end-of-sequence token, stop string and
    /// special tokens. Empty for a model without a tokenizer.
    pub text: String,
    /// Every generated token, including the end-of-sequence token and the tokens of a stop string, without padding.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Number of tokens of the prompt, including special tokens.
    pub prompt_tokens: usize,
    /// How probable each token of `token_ids` was; `None` unless
    /// [`GenerationOptions::log_probabilities`](crate::GenerationOptions) requests it.
    pub log_probabilities: Option<Vec<LogProbabilities>>,
    /// Work saved by the prefix cache and by speculation.
    pub statistics: GenerationStatistics,
    /// How long it took.
    pub timings: Timings,
}

/// Work saved by the prefix cache and by speculation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GenerationStatistics {
    /// Tokens of the prompt that were taken from a [`PrefixCache`](crate::PrefixCache).
    pub reused_tokens: usize,
    /// Draft tokens that were verified, see [`PromptLookup`](crate::PromptLookup).
    pub drafted_tokens: usize,
    /// Draft tokens that were accepted; each saves one step.
    pub accepted_tokens: usize,
}

/// How long a continuation took. The sequences of a batch share their steps, so the times of one include the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// From the start of the stream to the sequence's first token, including the time that the caller took between two
    /// events. `None` if it has no token.
    pub first_token: Option<Duration>,
    /// Computation of the prompt: from the first call of the stream to the logits of the prompt's last token.
    pub prompt: Duration,
    /// Computation of the continuation: from the end of the prompt to the end of the sequence. The time between two calls of
    /// the stream does not count, so a slow reader does not make it longer.
    pub generation: Duration,
}
