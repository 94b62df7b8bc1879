//! The jobs of a request as one stream of what they add to its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use jetmoe_rt::{FinishReason, TokenEvent};

use crate::engine::{Job, JobEvent, JobStream, PromptScores, TokenExperts};
use crate::error::{ApiError, ApiResult};
use crate::registry::Lease;
use crate::state::AppState;

/// The jobs of a request. Dropping it cancels them.
pub(crate) struct Generation {
    state: AppState,
    /// Keeps the model in memory.
    lease: Lease,
    sequences: Vec<Sequence>,
    /// Which sequence is asked first, so that none waits for the others.
    next: usize,
    usage: Usage,
}

struct Sequence {
    events: JobStream,
    /// Whether it is the first choice of its prompt.
    is_first: bool,
    /// Whether it had a slot.
    has_started: bool,
    is_complete: bool,
}

/// Tokens of a request, of all its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Tokens of prompts; a prompt with several choices counts once.
    pub(crate) prompt_tokens: usize,
    /// Of those, tokens that were reused from earlier requests, in the first choice of each prompt.
    pub(crate) cached_tokens: usize,
    /// Generated tokens, end-of-sequence tokens included.
    pub(crate) completion_tokens: usize,
}

/// What an event adds to the answer of a sequence.
#[derive(Debug)]
pub(crate) struct Delta {
    /// The sequence, in the order of the jobs.
    pub(crate) sequence: usize,
    /// The text that can no longer change.
    pub(crate) text: String,
    /// The token.
    pub(crate) token: Option<TokenEvent>,
    /// The experts that the token before it took; empty if they are not reported.
    pub(crate) experts: TokenExperts,
    /// The log-probabilities of the prompt.
    pub(crate) prompt: Option<PromptScores>,
    /// Why the sequence ended; the last delta of each has it.
    pub(crate) finish: Option<FinishReason>,
}

impl Generation {
    /// Puts jobs into the queue of a model: `choices` for each prompt, one prompt after the other.
    ///
    /// # Errors
    /// The refusal of the first job that is not taken; the others are then cancelled.
    pub(crate) fn start(state: &AppState, lease: Lease, jobs: Vec<Job>, choices: usize) -> ApiResult<Self> {
        let engine = lease.engine()?;
        let mut usage = Usage::default();
        let mut sequences = Vec::with_capacity(jobs.len());
        for (index, job) in jobs.into_iter().enumerate() {
            let is_first = index % choices.max(1) == 0;
            if is_first {
                usage.prompt_tokens += job.prompt.len();
            }
            let events = engine.submit(job)?;
            sequences.push(Sequence { events, is_first, has_started: false, is_complete: false });
        }
        Ok(Generation { state: state.clone(), lease, sequences, next: 0, usage })
    }

    /// The model.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Tokens so far; complete after the last delta.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// What is added next, by any sequence. `None` after the last delta of every sequence.
    ///
    /// # Errors
    /// The error of a job, after which the request has failed; status 503 if the server ends, 504 if the deadline passed before
    /// a sequence began.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<Delta>> {
        let shutdown = self.state.shutdown().clone();
        let mut ending = pin!(shutdown.ending());
        loop {
            let polled = poll_fn(|context| {
                if let Poll::Ready(event) = self.poll_sequences(context) {
                    return Poll::Ready(Some(event));
                }
                ending.as_mut().poll(context).map(|()| None)
            });
            let event = polled.await;
            match event {
                None => return Err(ApiError::shutting_down()),
                Some(None) => return Ok(None),
                Some(Some((sequence, event))) => {
                    if let Some(delta) = self.take(sequence, event)? {
                        return Ok(Some(delta));
                    }
                }
            }
        }
    }

    /// The next event of any sequence, with its index; `None` if all are complete.
    fn poll_sequences(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, JobEvent)>> {
        let count = self.sequences.len();
        let mut is_complete = true;
        for offset in 0..count {
            let index = (self.next + offset) % count;
            let sequence = &mut self.sequences[index];
            if sequence.is_complete {
                continue;
            }
            match sequence.events.poll_next(context) {
                Poll::Ready(Some(event)) => {
                    self.next = (index + 1) % count;
                    return Poll::Ready(Some((index, event)));
                }
                Poll::Ready(None) => sequence.is_complete = true,
                Poll::Pending => is_complete = false,
            }
        }
        if is_complete { Poll::Ready(None) } else { Poll::Pending }
    }

    /// What an event adds to the answer, if it does.
    fn take(&mut self, index: usize, event: JobEvent) -> ApiResult<Option<Delta>> {
        let sequence = &mut self.sequences[index];
        let empty = || Delta {
            sequence: index,
            text: String::new(),
            token: None,
            experts: TokenExperts::default(),
            prompt: None,
            finish: None,
        };
        match event {
            JobEvent::Started { cached_tokens, .. } => {
                sequence.has_started = true;
                if sequence.is_first {
                    self.usage.cached_tokens += cached_tokens;
                }
                Ok(None)
            }
            JobEvent::Prompt(scores) => Ok(Some(Delta { prompt: Some(scores), ..empty() })),
            JobEvent::Token { event, experts } => {
                sequence.is_complete = event.finish_reason.is_some();
                if event.finish_reason == Some(FinishReason::Deadline) && !sequence.has_started {
                    return Err(deadline());
                }
                if event.token.is_some() {
                    self.usage.completion_tokens += 1;
                }
                let (text, token, finish) = (event.text, event.token, event.finish_reason);
                Ok(Some(Delta { text, token, experts, finish, ..empty() }))
            }
            JobEvent::Failed(error) => Err(error.into()),
        }
    }
}

fn deadline() -> ApiError {
    ApiError::deadline_exceeded("the time of the request was over in the queue")
        .with_advice("repeat the request later, or raise limits.request_seconds of the server")
}
