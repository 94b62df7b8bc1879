//! Jobs: what an engine is asked for, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use jetmoe_rt::{Error, ErrorKind, Event, GenerationOptions, TokenLogProbability};
use tokio::sync::mpsc;

use super::constraint::Constraint;
use super::shared::Cancel;

/// One sequence to compute: a prompt and its continuation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How to sample and when to stop. [`GenerationOptions::prefill_chunk`] is not used, because the engine has its own;
    /// [`GenerationOptions::prompt_lookup`] is refused.
    pub options: GenerationOptions,
    /// Jobs of a higher priority start first; those of one priority in the order in which they came. 0 by default.
    pub priority: i32,
    /// When the job ends with [`FinishReason::Deadline`](jetmoe_rt::FinishReason::Deadline), wherever it is then, also in the
    /// queue. `None`, the default, for never.
    pub deadline: Option<Instant>,
    /// Reports the log-probability of every token of the prompt after the first, with as many of the most probable tokens in its
    /// place. Such a job reads its whole prompt: nothing of it is reused. `None`, the default, reports nothing.
    pub prompt_log_probabilities: Option<usize>,
    /// Whether tokens are generated at all; true by default. Without it the job ends after its prompt, with
    /// [`FinishReason::Length`](jetmoe_rt::FinishReason::Length).
    pub generates: bool,
    /// Reports which experts the tokens took; false by default. Refused if the model was not loaded to observe its routing.
    pub reports_experts: bool,
    /// What the continuation must be like, made by [`Engine::constraint`](super::Engine::constraint). `None`, the default, for any
    /// text.
    pub constraint: Option<Constraint>,
}

impl Job {
    /// A job with the defaults of its other fields.
    pub fn new(prompt: impl Into<Vec<u32>>, options: GenerationOptions) -> Self {
        Job {
            prompt: prompt.into(),
            options,
            priority: 0,
            deadline: None,
            prompt_log_probabilities: None,
            generates: true,
            reports_experts: false,
            constraint: None,
        }
    }

    /// Sets [`Job::priority`].
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets [`Job::deadline`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: impl Into<Option<Instant>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets [`Job::prompt_log_probabilities`].
    #[must_use]
    pub fn with_prompt_log_probabilities(mut self, count: impl Into<Option<usize>>) -> Self {
        self.prompt_log_probabilities = count.into();
        self
    }

    /// Sets [`Job::generates`].
    #[must_use]
    pub fn with_generation(mut self, generates: bool) -> Self {
        self.generates = generates;
        self
    }

    /// Sets [`Job::reports_experts`].
    #[must_use]
    pub fn with_experts(mut self, reports_experts: bool) -> Self {
        self.reports_experts = reports_experts;
        self
    }

    /// Sets [`Job::constraint`].
    #[must_use]
    pub fn with_constraint(mut self, constraint: impl Into<Option<Constraint>>) -> Self {
        self.constraint = constraint.into();
        self
    }
}

/// Experts that a token took, `[layers][2: attention, MLP][k]`, the best first; empty if they are not reported.
pub type TokenExperts = Arc<[[Vec<u32>; 2]]>;

/// What happens to a job, in this order: `Started`, `Prompt` where it was asked for, any number of `Token`s. The last event is a
/// `Token` with a finish reason, or `Failed`. A job that ends before has no `Started`.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// It has a slot, and reads its prompt next.
    Started {
        /// Tokens of the prompt that were reused from earlier requests.
        cached_tokens: usize,
        /// Time until then.
        queued: Duration,
    },
    /// The log-probabilities of the prompt.
    Prompt(PromptScores),
    /// A token, a text, or the end.
    Token {
        /// As a stream of `jetmoe-rt` returns it; [`Event::sequence`] is 0.
        event: Event,
        /// Experts that the token before it took, with which its logits were computed.
        experts: TokenExperts,
    },
    /// The job could not go on. Others are not affected.
    Failed(Arc<JobError>),
}

impl JobEvent {
    /// Whether it is the last event of a job.
    pub fn is_last(&self) -> bool {
        match self {
            JobEvent::Started { .. } | JobEvent::Prompt(_) => false,
            JobEvent::Token { event, .. } => event.finish_reason.is_some(),
            JobEvent::Failed(_) => true,
        }
    }
}

/// Log-probabilities of a prompt's tokens after the first.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct PromptScores {
    /// Of each token: its own log-probability, and the most probable tokens in its place.
    pub tokens: Vec<(f32, Vec<TokenLogProbability>)>,
}

/// Why a job that was taken could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The model, the sampler or the tokenizer failed.
    #[error(transparent)]
    Model(#[from] Error),
    /// The constraint cannot be followed any further.
    #[error("the constraint cannot be followed: {problem}")]
    Constraint {
        /// What is wrong.
        problem: String,
    },
    /// Code of the job panicked.
    #[error("the request failed by an internal error")]
    Panic {
        /// The message of the panic, for a log.
        message: String,
    },
    /// The server shut down before the job was complete.
    #[error("the server is shutting down\n  send the request again, to another replica if there is one")]
    ShuttingDown,
    /// The engine ended before the job was complete.
    #[error("the engine of the model ended")]
    Ended,
}

impl JobError {
    /// What kind of error it is. [`ErrorKind::Busy`] for [`JobError::ShuttingDown`]: the same request can succeed later.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JobError::Model(error) => error.kind(),
            JobError::Constraint { .. } => ErrorKind::InvalidInput,
            JobError::Panic { .. } | JobError::Ended => ErrorKind::Internal,
            JobError::ShuttingDown => ErrorKind::Busy,
        }
    }
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is full.
    #[error("{queued} requests wait already\n  send the request again later")]
    QueueFull {
        /// Jobs in the queue.
        queued: usize,
        /// An estimate of when a job could be taken.
        retry_after: Duration,
    },
    /// The job cannot run.
    #[error(transparent)]
    Invalid(#[from] Error),
    /// The constraint cannot be compiled, or not followed with the other options.
    #[error("the {kind} is not usable: {problem}")]
    Constraint {
        /// What the constraint is: "JSON schema", "regular expression".
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The model was not loaded to observe its routing, so experts cannot be reported.
    #[error("the experts of tokens are not observed\n  load the model with observed routing")]
    ExpertsNotObserved,
    /// The server is shutting down.
    #[error("the server is shutting down\n  send the request again, to another replica if there is one")]
    ShuttingDown,
}

impl Refusal {
    /// What kind of error it is. [`ErrorKind::Busy`] for [`Refusal::QueueFull`] and [`Refusal::ShuttingDown`]: the same request
    /// can succeed later.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Refusal::QueueFull { .. } | Refusal::ShuttingDown => ErrorKind::Busy,
            Refusal::Invalid(error) => error.kind(),
            Refusal::Constraint { .. } => ErrorKind::InvalidInput,
            Refusal::ExpertsNotObserved => ErrorKind::Unsupported,
        }
    }
}

/// The events of a job. They are kept until they are read, so a slow reader delays no other job; their number is at most that of
/// the tokens. Dropping the stream cancels the job within one step.
pub struct JobStream {
    events: mpsc::UnboundedReceiver<JobEvent>,
    is_complete: bool,
    _cancel: Cancel,
}

impl JobStream {
    pub(super) fn new(events: mpsc::UnboundedReceiver<JobEvent>, cancel: Cancel) -> Self {
        JobStream { events, is_complete: false, _cancel: cancel }
    }

    /// The next event; `None` after the last one. Cancel safe.
    pub async fn next(&mut self) -> Option<JobEvent> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`JobStream::next`], for an implementation of a stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        self.events.poll_recv(context).map(|event| self.complete(event))
    }

    /// As [`JobStream::next`], for a thread outside of an asynchronous runtime: waits for the event.
    ///
    /// # Panics
    /// In a thread of an asynchronous runtime.
    pub fn blocking_next(&mut self) -> Option<JobEvent> {
        let event = self.events.blocking_recv();
        self.complete(event)
    }

    /// Every job has a last event, also if its engine is gone.
    fn complete(&mut self, event: Option<JobEvent>) -> Option<JobEvent> {
        let event = match event {
            None if !self.is_complete => Some(JobEvent::Failed(Arc::new(JobError::Ended))),
            event => event,
        };
        self.is_complete |= event.as_ref().is_none_or(JobEvent::is_last);
        event
    }
}

impl fmt::Debug for JobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobStream").field("is_complete", &self.is_complete).finish_non_exhaustive()
    }
}
