//! The answers of completions, and the log-probabilities in their form.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use jetmoe_rt::{LogProbabilities, TokenLogProbability};

use super::super::choice::{Experts, Finish};
use super::super::usage::Usage;
use crate::engine::PromptScores;
use crate::generation::TokenTexts;

/// The continuations of a request, or a chunk of them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Completion {
    /// An id of the answer.
    pub(super) id: String,
    /// `text_completion`.
    pub(super) object: &'static str,
    /// When it began, in seconds since 1970.
    pub(super) created: u64,
    /// Name of the model.
    pub(super) model: String,
    /// The choices of each prompt, one prompt after the other.
    pub(super) choices: Vec<CompletionChoice>,
    /// Tokens of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub(super) usage: Option<Option<Usage>>,
}

/// A continuation, or a part of it.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(super) struct CompletionChoice {
    /// Its index: the prompt times `n`, plus the choice.
    pub(super) index: usize,
    /// The text, with the prompt if it is echoed.
    pub(super) text: String,
    /// Log-probabilities, if they are requested.
    pub(super) logprobs: Option<Logprobs>,
    /// Why it ended.
    pub(super) finish_reason: Option<Finish>,
    /// Why exactly: `end-token`, `stop-string`, `max-new-tokens`, `max-positions` or `deadline`.
    pub(super) finish_detail: Option<String>,
    /// For each generated token the experts that the token before it took, `[layers][2: attention, MLP][k]`, if they are requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<Vec<Vec<u32>>>>>)]
    pub(super) experts: Option<Vec<Experts>>,
}

/// Log-probabilities of tokens, in lists of one length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct Logprobs {
    /// The tokens. One that is no whole text has the form `bytes:\xe2`.
    pub(super) tokens: Vec<String>,
    /// Their log-probabilities; null for the first token of a prompt.
    pub(super) token_logprobs: Vec<Option<f64>>,
    /// The most probable tokens in the place of each, and the token itself; null for the first token of a prompt.
    #[schema(value_type = Vec<Option<std::collections::HashMap<String, f64>>>)]
    pub(super) top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Where each token begins in the text, in characters.
    pub(super) text_offset: Vec<usize>,
}

impl Logprobs {
    /// Adds a token.
    pub(super) fn push(
        &mut self,
        texts: &TokenTexts,
        id: u32,
        scores: Option<&LogProbabilities>,
        offset: usize,
    ) {
        let scores = scores.map(|scores| (scores.chosen, scores.best.as_slice()));
        self.push_scored(texts, id, scores, offset);
    }

    /// Adds the tokens of a prompt; `offsets` has one for each.
    pub(super) fn push_prompt(
        &mut self,
        texts: &TokenTexts,
        ids: &[u32],
        scores: &PromptScores,
        offsets: &[usize],
    ) {
        // the first token has no distribution
        let scores = std::iter::once(None)
            .chain(scores.tokens.iter().map(|(own, best)| Some((*own, best.as_slice()))));
        for ((id, scores), offset) in ids.iter().zip(scores).zip(offsets) {
            self.push_scored(texts, *id, scores, *offset);
        }
    }

    fn push_scored(
        &mut self,
        texts: &TokenTexts,
        id: u32,
        scores: Option<(f32, &[TokenLogProbability])>,
        offset: usize,
    ) {
        let text = texts.text(id);
        let top = scores.map(|(own, best)| {
            let mut top = Map::new();
            for token in best {
                // of tokens with one text the more probable one
                top.entry(texts.text(token.token_id)).or_insert_with(|| number(token.log_probability));
            }
            top.entry(text.clone()).or_insert_with(|| number(own));
            top
        });
        self.tokens.push(text);
        self.token_logprobs.push(scores.map(|(own, _)| finite(own)));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }

    /// Appends others.
    pub(super) fn extend(&mut self, other: Logprobs) {
        self.tokens.extend(other.tokens);
        self.token_logprobs.extend(other.token_logprobs);
        self.top_logprobs.extend(other.top_logprobs);
        self.text_offset.extend(other.text_offset);
    }
}

fn number(value: f32) -> Value {
    finite(value).into()
}

/// A log-probability that JSON has: −9999, as OpenAI's API writes it, for negative infinity.
pub(in super::super) fn finite(value: f32) -> f64 {
    if value.is_finite() { f64::from(value) } else { -9999.0 }
}
