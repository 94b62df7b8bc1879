//! Texts that a model continues: from the text to a job of its engine, and from the events of the job to a text.

use std::time::Instant;

use axum::http::StatusCode;
use jetmoe_rt::{Event, FinishReason, Tokenizer};
use serde::Serialize;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::parameters::GenerateParameters;
use crate::compute::encode::encode_text;
use crate::engine::{Job, JobEvent, JobStream};
use crate::error::{ApiError, ApiResult};
use crate::registry::Lease;
use crate::state::AppState;

/// A generated token.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Token {
    id: u32,
    /// Its text in the vocabulary.
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

/// One step of a continuation.
#[derive(Debug)]
pub(crate) struct Step {
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
#[derive(Debug)]
pub(crate) struct Continuation {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: EndReason,
}

/// The events of a text's job.
#[derive(Debug)]
pub(crate) struct Steps {
    events: JobStream,
    /// Keeps the model in memory.
    lease: Lease,
    state: AppState,
}

/// Starts the continuation of the text with an index.
///
/// # Errors
/// A text or parameters that the model cannot take, or a full queue.
pub(crate) async fn start(
    state: &AppState,
    lease: &Lease,
    (index, text): (usize, String),
    parameters: &GenerateParameters,
    deadline: Option<Instant>,
) -> ApiResult<Steps> {
    let engine = lease.engine()?.clone();
    let options = parameters.options(lease.model(), state.config().limits.max_tokens)?;
    let events = spawn_blocking(move || {
        let prompt = encode_text(engine.generator().model(), index, &text)?;
        ApiResult::Ok(engine.submit(Job::new(prompt, options).with_deadline(deadline))?)
    });
    let events = events.await.map_err(|_| ApiError::internal())??;
    Ok(Steps { events, lease: lease.clone(), state: state.clone() })
}

impl Steps {
    /// The next step; `None` after the last one.
    ///
    /// # Errors
    /// Status 504 at the deadline, 503 at the end of the server, or the error of the job.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<Step>> {
        loop {
            let event = tokio::select! {
                event = self.events.next() => event,
                () = self.state.shutdown().ending() => return Err(ApiError::shutting_down()),
            };
            match event {
                None => return Ok(None),
                Some(JobEvent::Token { event, .. }) => return self.step(event).map(Some),
                Some(JobEvent::Failed(error)) => return Err(error.into()),
                Some(_) => {}
            }
        }
    }

    fn step(&self, event: Event) -> ApiResult<Step> {
        let end = match event.finish_reason {
            None => None,
            Some(FinishReason::Length | FinishReason::ContextFull) => Some(EndReason::Length),
            Some(FinishReason::Eos) => Some(EndReason::EosToken),
            Some(FinishReason::StopString) => Some(EndReason::StopSequence),
            Some(FinishReason::Deadline) => return Err(deadline_exceeded()),
            Some(reason) => {
                tracing::error!(%reason, "a continuation ended early");
                return Err(ApiError::internal());
            }
        };
        let tokenizer = self.lease.model().tokenizer();
        let token = event.token.map(|token| {
            let logprob = token.log_probabilities.map(|probabilities| probabilities.chosen);
            Token::new(tokenizer, token.token_id, logprob)
        });
        Ok(Step { text: event.text, token, end })
    }

    /// The whole continuation.
    ///
    /// # Errors
    /// As [`Steps::next`].
    pub(crate) async fn collect(mut self) -> ApiResult<Continuation> {
        let mut continuation =
            Continuation { text: String::new(), tokens: Vec::new(), end: EndReason::Length };
        while let Some(step) = self.next().await? {
            continuation.text.push_str(&step.text);
            continuation.tokens.extend(step.token);
            if let Some(end) = step.end {
                continuation.end = end;
            }
        }
        Ok(continuation)
    }
}

impl Token {
    fn new(tokenizer: Option<&Tokenizer>, id: u32, logprob: Option<f32>) -> Self {
        let text = tokenizer.and_then(|tokenizer| tokenizer.token(id)).unwrap_or_default();
        let special = tokenizer.is_some_and(|tokenizer| tokenizer.special_token(id).is_some());
        Token { id, text, logprob, special }
    }
}

fn deadline_exceeded() -> ApiError {
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", "the time of the request has passed")
        .with_advice("generate fewer tokens, or repeat the request when the server is less busy")
}
