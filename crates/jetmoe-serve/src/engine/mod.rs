//! The engine of a model: a thread that runs jobs in the slots of shared steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_rt::{Error, Event, FinishReason, GenerationOptions, Generator, TokenLogProbability};
use tokio::sync::mpsc;

/// One sequence to compute: a prompt and its continuation.
#[derive(Debug, Clone)]
pub struct Job {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How to sample and when to stop. `prefill_chunk` is the engine's, not the job's.
    pub options: GenerationOptions,
    /// Jobs of a higher priority start first; those of one priority in the order in which they came. 0 by default.
    pub priority: i32,
    /// When the job ends with [`FinishReason::Deadline`], wherever it is then, also in the queue.
    pub deadline: Option<Instant>,
    /// Reports the log-probability of every token of the prompt after the first, with as many of the most probable tokens in its
    /// place. Such a job reads its whole prompt: nothing of it is reused.
    pub prompt_log_probabilities: Option<usize>,
    /// Whether tokens are generated at all. Without it the job ends after its prompt, with [`FinishReason::Length`].
    pub generates: bool,
    /// Reports which experts the tokens took, if the model was loaded to observe them.
    pub reports_experts: bool,
}

/// What happens to a job, in this order: `Started`, `Prompt` where it was asked for, any number of `Token`s. The last event is a
/// `Token` with a finish reason, or `Failed`.
#[derive(Debug)]
pub enum JobEvent {
    /// It has a slot.
    Started {
        /// Tokens of the prompt that were reused from earlier requests.
        cached_tokens: usize,
        /// Time in the queue.
        queued: Duration,
    },
    /// The log-probabilities of the prompt.
    Prompt(PromptScores),
    /// A token, a text, or the end.
    Token {
        /// As a stream of `jetmoe-rt` returns it.
        event: Event,
        /// Experts that the token before it took, `[layers][2: attention, MLP][k]`; empty if they are not reported.
        experts: Arc<[[Vec<u32>; 2]]>,
    },
    /// The job could not go on. Others are not affected.
    Failed(Arc<Error>),
}

/// Log-probabilities of a prompt's tokens after the first.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptScores {
    /// Of each token: its own log-probability, and the most probable tokens in its place.
    pub tokens: Vec<(f32, Vec<TokenLogProbability>)>,
}

/// The events of a job. Dropping it cancels the job within one step.
#[derive(Debug)]
pub struct JobStream {
    events: mpsc::UnboundedReceiver<JobEvent>,
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is full.
    #[error("{queued} requests wait already")]
    QueueFull {
        /// Jobs in the queue.
        queued: usize,
        /// An estimate of when a job could be taken.
        retry_after: Duration,
    },
    /// The job cannot run.
    #[error(transparent)]
    Invalid(Error),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Sizes of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Sequences that share steps.
    pub slots: usize,
    /// Most tokens of a sequence; by default the positions of the model.
    pub capacity: Option<usize>,
    /// Most tokens of prompts that one step reads beside the next tokens of other sequences.
    pub prefill_chunk: usize,
    /// Most jobs that wait.
    pub queue: usize,
    /// Bytes for prefixes that are kept for later requests.
    pub prefix_memory: u64,
}

/// Runs the jobs of one model. Cloning shares the thread; the last clone that is dropped ends it.
#[derive(Debug, Clone)]
pub struct Engine {
    generator: Generator,
}
