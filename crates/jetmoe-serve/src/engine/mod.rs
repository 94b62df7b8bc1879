//! The engine of a model: a thread that runs jobs in the slots of shared steps.
//!
//! `queue.rs`, `schedule.rs` and `prefix.rs` decide, without a model: who is next, what a step reads, what is reused.
//! `worker.rs` drives the slots by them; `sequence.rs` is a job that has a slot. `shared.rs` is what the thread shares with
//! callers; `outbox.rs` hands its events to them.
//!
//! Samplers of `jetmoe-rt` decide every token. With a `native` graph on ONNX Runtime or tract, whose steps compute the same bits
//! in any company and in chunks of any size, greedy and seeded output of a job equals that of
//! [`Generator::run`](jetmoe_rt::Generator::run), whatever shares its steps and whatever is reused; see
//! [`Slots`](jetmoe_rt::Slots). Other graphs round differently in other companies, so their output can differ where two tokens
//! are almost equally probable.

mod constraint;
mod experts;
mod job;
mod metrics;
mod options;
mod outbox;
mod panics;
mod prefix;
mod queue;
mod schedule;
mod scores;
mod sequence;
mod shared;
#[cfg(test)]
mod tests;
mod vocabulary;
mod worker;

use std::sync::Arc;
use std::time::Instant;

use jetmoe_rt::{Error, Generator};
use prometheus_client::registry::Registry;

use self::constraint::Constraints;
use self::experts::Experts;
use self::metrics::EngineMetrics;
use self::outbox::Outbox;
use self::queue::Full;
use self::sequence::Pending;
use self::shared::{Cancel, Shared, Submission};
use self::worker::Worker;

pub use self::constraint::{Constraint, ConstraintKind};
pub use self::job::{Job, JobError, JobEvent, JobStream, PromptScores, Refusal, TokenExperts};
pub use self::options::{EngineOptions, StartError};
pub(crate) use self::panics::message as panic_message;

/// Runs the jobs of one model. Cloning shares the thread. After the last clone is dropped the thread completes the jobs that it
/// has, and ends.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Its model has as many positions as a slot has tokens.
    generator: Generator,
    slots: usize,
    constraints: Constraints,
    observes_experts: bool,
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close(None);
    }
}

/// How busy an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EngineLoad {
    /// Jobs that wait for a slot.
    pub queued: usize,
    /// Jobs that have a slot.
    pub running: usize,
}

impl Engine {
    /// Makes the slots and starts the thread.
    ///
    /// # Errors
    /// [`StartError::Memory`] if the slots and the kept prefixes will not fit in the memory that is left,
    /// [`StartError::Thread`] if the system has no thread for it, or an error of the model.
    pub fn start(generator: Generator, options: EngineOptions) -> Result<Engine, StartError> {
        options.validate()?;
        let capacity = options.capacity_of(generator.model().config());
        let model = generator.model().clone().with_max_positions(capacity);
        let generator = Generator::new(&model)?;
        options.check_memory(&model, capacity, jetmoe_rt::available_memory())?;
        let slots = model.slots(options.slots, capacity)?;
        let metrics = EngineMetrics::new(&options, capacity);
        let outbox = Outbox::start().map_err(StartError::Thread)?;
        let shared = Arc::new(Shared::new(options.queue, metrics, outbox));
        let experts = Experts::of(&model);
        let inner = Inner {
            slots: options.slots,
            constraints: Constraints::new(&generator),
            generator: generator.clone(),
            observes_experts: experts.is_some(),
            shared: Arc::clone(&shared),
        };
        Worker::spawn(generator, options, slots, experts, shared)?;
        Ok(Engine { inner: Arc::new(inner) })
    }

    /// The generator whose model the engine runs. It has as many positions as [`Engine::capacity`].
    pub fn generator(&self) -> &Generator {
        &self.inner.generator
    }

    /// Most tokens of a sequence, prompt and continuation.
    pub fn capacity(&self) -> usize {
        self.inner.generator.model().config().max_position_embeddings
    }

    /// Whether [`Job::reports_experts`] is possible.
    pub fn observes_experts(&self) -> bool {
        self.inner.observes_experts
    }

    /// How busy the engine is now.
    pub fn load(&self) -> EngineLoad {
        self.inner.shared.load()
    }

    /// Whether the engine takes jobs.
    pub fn is_open(&self) -> bool {
        self.inner.shared.is_open()
    }

    /// Registers the metrics of the engine: those whose names begin with `jetmoe_engine_`. Give each engine a part of the registry
    /// with a label of its own ([`Registry::sub_registry_with_label`]).
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.shared.metrics().register(registry);
    }

    /// Compiles a constraint for jobs of this engine; clones of it can be used for several jobs. It takes milliseconds, and seconds
    /// for the first one, which builds tables of the vocabulary: call it where a thread may be blocked.
    ///
    /// # Errors
    /// [`Refusal::Constraint`] for a constraint that is not valid, too complex or not supported,
    /// [`Error::NoTokenizer`] for a model without a tokenizer.
    pub fn constraint(&self, kind: &ConstraintKind) -> Result<Constraint, Refusal> {
        self.inner.constraints.compile(kind)
    }

    /// Checks a job and puts it into the queue.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`], [`Refusal::ShuttingDown`], and what is wrong with the job: [`Refusal::Invalid`] with the errors of
    /// [`Generator::sampler`] and [`Error::Option`] for a prompt lookup; [`Refusal::ExpertsNotObserved`]; [`Refusal::Constraint`] for
    /// one that the options contradict.
    pub fn submit(&self, job: Job) -> Result<JobStream, Refusal> {
        let shared = &self.inner.shared;
        let result = self.submit_checked(job);
        if let Err(refusal) = &result {
            shared.metrics().refused(refusal);
        }
        result
    }

    fn submit_checked(&self, job: Job) -> Result<JobStream, Refusal> {
        self.check(&job)?;
        let shared = &self.inner.shared;
        if !shared.is_open() {
            return Err(Refusal::ShuttingDown);
        }
        let sampler = self.inner.generator.sampler(&job.prompt[..], &job.options)?;
        let (pending, events) = Pending::new(job, sampler, Arc::clone(shared.outbox()));
        let interrupt = pending.interrupt().clone();
        match shared.submit(pending) {
            Submission::Queued(key) => {
                Ok(JobStream::new(events, Cancel::new(interrupt, Arc::clone(shared), key)))
            }
            Submission::Full(Full { queued }) => {
                Err(Refusal::QueueFull { queued, retry_after: shared.retry_after(queued, self.inner.slots) })
            }
            Submission::Closed => Err(Refusal::ShuttingDown),
        }
    }

    /// What [`Generator::sampler`] does not check.
    fn check(&self, job: &Job) -> Result<(), Refusal> {
        if job.options.prompt_lookup.is_some() {
            let expected = "none: an engine shares its steps between sequences and drafts for none of them";
            return Err(Error::Option { option: "prompt_lookup", found: "set".to_owned(), expected }.into());
        }
        if job.reports_experts && !self.inner.observes_experts {
            return Err(Refusal::ExpertsNotObserved);
        }
        self.inner.constraints.check(job)
    }

    /// Takes no more jobs, completes those in slots and in the queue, and ends the thread. Returns when it has ended. At
    /// `deadline` those that are left fail with [`JobError::ShuttingDown`]; `None` waits for all of them. A second call with an
    /// earlier deadline hurries the first one.
    pub async fn shutdown(&self, deadline: impl Into<Option<Instant>>) {
        self.inner.shared.close(deadline.into());
        self.inner.shared.ended().await;
    }
}
