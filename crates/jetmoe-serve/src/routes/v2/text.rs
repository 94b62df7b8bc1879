//! Texts that a model continues: from texts to the jobs of a request, and from what these add to continuations.

use std::time::Instant;

use jetmoe_rt::{Error, FinishReason};
use serde::Serialize;
use utoipa::ToSchema;

use super::metadata::TEXT_INPUT;
use super::parameters::GenerateParameters;
use crate::engine::Job;
use crate::error::{ApiError, ApiResult};
use crate::generation::{Delta, Generation, encode_text};
use crate::registry::Lease;
use crate::state::AppState;

/// A generated token.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = GeneratedToken)]
pub(crate) struct Token {
    id: u32,
    /// What it adds to the text. One that is no whole text has the form `bytes:\xe2`.
    text: String,
    /// Natural logarithm of its probability by the model's own distribution.
    logprob: Option<f32>,
    /// Whether it is a special token, which is no part of the text.
    special: bool,
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndReason {
    /// `max_tokens` tokens, or all positions of the model.
    Length,
    /// The model generated its token for the end.
    EosToken,
    /// The text contains one of the texts of `stop`.
    StopSequence,
}

/// What one step adds to the continuation of a text.
#[derive(Debug)]
pub(crate) struct Step {
    /// Index of the text.
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) token: Option<Token>,
    pub(crate) end: Option<EndReason>,
}

impl Step {
    /// Whether it has neither text nor the end.
    pub(crate) fn is_silent(&self) -> bool {
        self.text.is_empty() && self.end.is_none()
    }
}

/// A whole continuation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Continuation {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: Option<EndReason>,
}

/// The continuations of a request's texts.
pub(crate) struct Steps(Generation);

impl Steps {
    /// Puts the jobs of all texts into the queue of a model. Control tokens in texts are text.
    ///
    /// # Errors
    /// Texts or parameters that the model cannot take, or a full queue.
    pub(crate) async fn start(
        state: &AppState,
        lease: &Lease,
        texts: Vec<String>,
        parameters: &GenerateParameters,
        deadline: Option<Instant>,
    ) -> ApiResult<Self> {
        let options = parameters.options(lease.engine()?, &state.config().limits)?;
        if let Some(index) = texts.iter().position(String::is_empty) {
            return Err(ApiError::from(Error::EmptyPrompt { index }).or_param(TEXT_INPUT));
        }
        let prompts = encode_text(lease.model(), texts, true, TEXT_INPUT).await?;
        let jobs =
            prompts.into_iter().map(|prompt| Job::new(prompt, options.clone()).with_deadline(deadline));
        Generation::start(state, lease.clone(), jobs.collect(), 1).map(Steps)
    }

    /// The next step of any text; `None` after the last ones.
    ///
    /// # Errors
    /// Status 504 at the deadline, 503 at the end of the server, or the error of a job.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<Step>> {
        let Some(delta) = self.0.next().await? else { return Ok(None) };
        let Delta { sequence, text, token, finish, .. } = delta;
        let end = finish.map(end_reason).transpose()?;
        let token = token.map(|token| {
            let logprob = token.log_probabilities.map(|probabilities| probabilities.chosen);
            Token::new(self.0.lease(), token.token_id, logprob)
        });
        Ok(Some(Step { index: sequence, text, token, end }))
    }

    /// The whole continuations of `count` texts, in their order.
    ///
    /// # Errors
    /// As [`Steps::next`].
    pub(crate) async fn collect(mut self, count: usize) -> ApiResult<Vec<Continuation>> {
        let mut continuations = vec![Continuation::default(); count];
        while let Some(step) = self.next().await? {
            let Some(continuation) = continuations.get_mut(step.index) else { continue };
            continuation.text.push_str(&step.text);
            continuation.tokens.extend(step.token);
            continuation.end = step.end.or(continuation.end);
        }
        Ok(continuations)
    }
}

/// # Errors
/// Status 504 for a deadline: a response cannot tell that its text is not all.
fn end_reason(reason: FinishReason) -> ApiResult<EndReason> {
    match reason {
        FinishReason::Length | FinishReason::ContextFull => Ok(EndReason::Length),
        FinishReason::Eos => Ok(EndReason::EosToken),
        FinishReason::StopString => Ok(EndReason::StopSequence),
        FinishReason::Deadline => Err(deadline_exceeded()),
        reason => {
            tracing::error!(%reason, "a continuation ended early");
            Err(ApiError::internal())
        }
    }
}

fn deadline_exceeded() -> ApiError {
    ApiError::deadline_exceeded("the time of the request has passed")
        .with_advice("generate fewer tokens, or repeat the request when the server is less busy")
}

impl Token {
    fn new(lease: &Lease, id: u32, logprob: Option<f32>) -> Self {
        let texts = lease.token_texts();
        Token { id, text: texts.text(id), logprob, special: texts.bytes(id).is_none() }
    }
}
