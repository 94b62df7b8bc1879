//! What is to be scored.

use jetmoe_backend::CancellationToken;
use jetmoe_text::ChatOptions;

use crate::error::at_least_one;
use crate::generation::request::{conversions, conversions_of_texts_and_tokens};
use crate::{Prompt, Result};

/// What is scored: a text or token ids. Both convert into it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Continuation {
    /// A text, encoded together with its prompt, see [`Generator::score`](crate::Generator::score).
    Text(String),
    /// Token ids, unchanged.
    Tokens(Vec<u32>),
}

conversions_of_texts_and_tokens!(Continuation);

impl Continuation {
    /// Bytes of the text; none of token ids.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Continuation::Text(text) => text.len(),
            Continuation::Tokens(_) => 0,
        }
    }
}

/// Options of a scoring.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScoringOptions {
    /// Sequences per batch, at least 1; 16 by default. Sequences of similar length share a batch.
    pub batch_size: usize,
    /// Most tokens in one step, of all sequences of the batch together, at least 1; 512 by default. It bounds the memory of a
    /// step: the logits take 4 · `max_step_tokens` · `vocab_size` bytes. A step has at least one token of each sequence.
    pub max_step_tokens: usize,
    /// Reports this many of the most probable tokens in the place of each scored one; 0, the default, for none.
    pub log_probabilities: usize,
}

impl Default for ScoringOptions {
    fn default() -> Self {
        ScoringOptions { batch_size: 16, max_step_tokens: 512, log_probabilities: 0 }
    }
}

impl ScoringOptions {
    /// Sets [`ScoringOptions::batch_size`].
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Sets [`ScoringOptions::max_step_tokens`].
    #[must_use]
    pub fn with_max_step_tokens(mut self, max_step_tokens: usize) -> Self {
        self.max_step_tokens = max_step_tokens;
        self
    }

    /// Sets [`ScoringOptions::log_probabilities`].
    #[must_use]
    pub fn with_log_probabilities(mut self, log_probabilities: usize) -> Self {
        self.log_probabilities = log_probabilities;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for the first invalid value.
    pub fn validate(&self) -> Result<()> {
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("max_step_tokens", self.max_step_tokens)
    }
}

/// What to score: any number of continuations, each after a prompt of its own or without one.
///
/// ```
/// use jetmoe_rt::ScoringRequest;
///
/// let choices = ScoringRequest::continuations("And God said, Let there be", [" light", " darkness"]);
/// let pairs = ScoringRequest::pairs([("In the", " beginning"), ("And the", " earth")]);
/// let texts = ScoringRequest::texts(["In the beginning God created the heaven and the earth."]);
/// let token_ids = ScoringRequest::pairs([([1, 503], [261, 7])]);
/// # let _ = (choices, pairs, texts, token_ids);
/// ```
#[derive(Debug, Clone)]
pub struct ScoringRequest {
    pub(super) items: Vec<(Option<Prompt>, Continuation)>,
    pub(super) options: ScoringOptions,
    pub(super) chat_options: ChatOptions,
    pub(super) cancellation: CancellationToken,
}

impl ScoringRequest {
    /// Several continuations of one prompt, as the choices of a question.
    pub fn continuations<C: Into<Continuation>>(
        prompt: impl Into<Prompt>,
        continuations: impl IntoIterator<Item = C>,
    ) -> Self {
        let prompt = prompt.into();
        Self::pairs(continuations.into_iter().map(|continuation| (prompt.clone(), continuation)))
    }

    /// Prompts, each with a continuation.
    pub fn pairs<P: Into<Prompt>, C: Into<Continuation>>(pairs: impl IntoIterator<Item = (P, C)>) -> Self {
        Self::of(
            pairs
                .into_iter()
                .map(|(prompt, continuation)| (Some(prompt.into()), continuation.into()))
                .collect(),
        )
    }

    /// Whole texts: every token is scored, the first one after the begin-of-sequence token.
    pub fn texts<C: Into<Continuation>>(texts: impl IntoIterator<Item = C>) -> Self {
        Self::of(texts.into_iter().map(|text| (None, text.into())).collect())
    }

    fn of(items: Vec<(Option<Prompt>, Continuation)>) -> Self {
        ScoringRequest {
            items,
            options: ScoringOptions::default(),
            chat_options: ChatOptions::default(),
            cancellation: CancellationToken::new(),
        }
    }

    /// Sets the options.
    #[must_use]
    pub fn with_options(mut self, options: ScoringOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets how conversations are rendered, as [`Request::with_chat_options`](crate::Request::with_chat_options).
    #[must_use]
    pub fn with_chat_options(mut self, chat_options: ChatOptions) -> Self {
        self.chat_options = chat_options;
        self
    }

    /// Ends the scoring when `token` is cancelled, from any thread: between two steps, and in the middle of one if the backend
    /// can be told. [`Generator::score`](crate::Generator::score) then fails with
    /// [`Error::Cancelled`](crate::Error::Cancelled), [`Generator::score_each`](crate::Generator::score_each) keeps what was
    /// scored.
    #[must_use]
    pub fn with_cancellation(mut self, token: &CancellationToken) -> Self {
        self.cancellation = token.clone();
        self
    }

    /// Number of continuations.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no continuation.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
