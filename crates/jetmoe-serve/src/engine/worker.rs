//! The thread of an engine: drives the slots.
//!
//! Between two steps it ends jobs whose client left or whose deadline passed, and gives free slots to the next jobs. A step that
//! fails is repeated for each of its sequences alone; a sequence that fails alone fails its job. If the slots are lost, by a panic
//! of the backend, they are made again, and every sequence reads its tokens again.

mod reuse;
mod step;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use jetmoe_rt::{Error, Generator, SavedTokens, Slots};

use self::reuse::common_length;
use self::step::Isolated;
use super::experts::Experts;
use super::metrics::{EngineMetrics, ExpertCounters};
use super::panics::{guarded, message};
use super::prefix::PrefixTree;
use super::schedule::{FreeSlot, choose_slot};
use super::sequence::{Pending, Sequence};
use super::shared::Shared;
use super::{EngineOptions, JobError, StartError};

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Worker {
    generator: Generator,
    options: EngineOptions,
    shared: Arc<Shared>,
    slots: Slots,
    /// By slot.
    sequences: Vec<Option<Sequence>>,
    /// By slot: when it became free.
    freed: Vec<u64>,
    /// Counts admissions and ends.
    clock: u64,
    /// When the last step ended, if one of its jobs went on.
    step_ended: Option<Instant>,
    prefixes: PrefixTree<SavedTokens>,
    /// Bytes of keys and values of a token.
    token_bytes: u64,
    experts: Option<(Experts, ExpertCounters)>,
    /// Sequences of a step that failed, which are stepped alone, one after the other.
    isolated: VecDeque<Isolated>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub(super) fn spawn(
        generator: Generator,
        options: EngineOptions,
        slots: Slots,
        experts: Option<Experts>,
        shared: Arc<Shared>,
    ) -> Result<(), StartError> {
        let count = slots.count();
        let worker = Worker {
            prefixes: PrefixTree::new(options.prefix_memory),
            token_bytes: generator.model().slot_bytes(1),
            experts: experts.map(|experts| (experts.clone(), shared.metrics().experts(&experts))),
            generator,
            options,
            shared,
            slots,
            sequences: (0..count).map(|_| None).collect(),
            freed: vec![0; count],
            clock: 0,
            step_ended: None,
            isolated: VecDeque::new(),
        };
        let builder = thread::Builder::new().name("jetmoe-engine".to_owned());
        builder.spawn(move || worker.run()).map(drop).map_err(StartError::Thread)
    }

    fn run(mut self) {
        loop {
            let failure = match catch_unwind(AssertUnwindSafe(|| self.serve())) {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::error!("the engine ends, because its slots could not be made again: {error}");
                    self.fail_all(|| JobError::Ended);
                    break;
                }
                Err(panic) => message(panic.as_ref()),
            };
            tracing::error!("the engine lost its jobs by a panic: {failure}");
            self.fail_all(|| JobError::Panic { message: failure.clone() });
            if let Err(error) = self.renew_slots() {
                tracing::error!("the engine ends, because its slots could not be made again: {error}");
                break;
            }
        }
        self.shared.end();
    }

    /// Runs jobs until none can come.
    ///
    /// # Errors
    /// The slots are lost.
    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let free = self.sequences.iter().filter(|sequence| sequence.is_none()).count();
            let is_running = free < self.sequences.len();
            self.step_ended = self.step_ended.filter(|_| is_running);
            let work = self.shared.next_work(free, is_running);
            for pending in work.interrupted {
                pending.end_interrupted(self.shared.metrics());
            }
            work.admitted.into_iter().for_each(|pending| self.admit(pending));
            if work.is_over {
                return Ok(());
            }
            if self.shared.is_stopped() {
                self.fail_all(|| JobError::ShuttingDown);
                let metrics = self.shared.metrics();
                self.shared
                    .drain()
                    .into_iter()
                    .for_each(|pending| pending.fail(JobError::ShuttingDown, metrics));
                continue;
            }
            self.end_interrupted()?;
            self.step()?;
            self.report();
        }
    }

    fn metrics(&self) -> &EngineMetrics {
        self.shared.metrics()
    }

    fn running(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter().flatten()
    }

    /// Sets the gauges.
    fn report(&self) {
        let tokens = self.running().map(|sequence| sequence.tokens_read() as u64).sum();
        self.metrics().cache(tokens, self.prefixes.bytes());
        self.metrics().running.set(self.running().count() as i64);
    }

    /// Gives a job a free slot.
    fn admit(&mut self, pending: Pending) {
        let prompt = pending.reusable_prompt();
        let free = self.sequences.iter().enumerate().filter(|(_, sequence)| sequence.is_none());
        let free: Vec<FreeSlot> = free
            .map(|(slot, _)| FreeSlot {
                slot,
                common: common_length(self.slots.token_ids(slot), prompt),
                freed: self.freed[slot],
            })
            .collect();
        let kept = self.prefixes.longest(prompt);
        let Some(slot) = choose_slot(&free, pending.prompt_length(), kept) else {
            pending.fail(JobError::Ended, self.metrics());
            return;
        };
        self.clock += 1;
        self.sequences[slot] = Some(Sequence::new(pending, slot, self.clock));
        self.report();
    }

    /// Ends the jobs whose deadline has passed or whose client has left.
    fn end_interrupted(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        for slot in 0..self.sequences.len() {
            let Some(sequence) = &mut self.sequences[slot] else { continue };
            let Some(reason) = sequence.interruption(now) else { continue };
            let metrics = self.shared.metrics();
            match guarded(|| sequence.end(reason, metrics)) {
                Ok(()) => self.free(slot),
                Err(error) => self.fail(slot, error)?,
            }
        }
        Ok(())
    }

    /// Frees the slot of a job that has ended. It keeps its tokens for a prompt that begins like them.
    fn free(&mut self, slot: usize) {
        self.keep(slot);
        if let Some(sequence) = self.sequences[slot].take() {
            self.shared.served(sequence.service_time());
        }
        self.leave(slot);
    }

    /// Fails the job of a slot, and empties it.
    ///
    /// # Errors
    /// The slots are lost.
    fn fail(&mut self, slot: usize, error: JobError) -> Result<(), Error> {
        if let Some(sequence) = self.sequences[slot].take() {
            sequence.fail(error, self.metrics());
        }
        self.leave(slot);
        match self.slots.truncate(slot, 0) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!("a slot could not be emptied: {error}");
                self.renew_slots()
            }
        }
    }

    fn leave(&mut self, slot: usize) {
        self.clock += 1;
        self.freed[slot] = self.clock;
        self.isolated.retain(|isolated| isolated.slot != slot);
        self.report();
    }

    /// Fails every job that has a slot.
    fn fail_all(&mut self, error: impl Fn() -> JobError) {
        for slot in 0..self.sequences.len() {
            if let Some(sequence) = self.sequences[slot].take() {
                sequence.fail(error(), self.metrics());
                self.leave(slot);
            }
        }
    }

    /// Makes the slots again. Every sequence reads its tokens again.
    ///
    /// # Errors
    /// The slots cannot be made.
    fn renew_slots(&mut self) -> Result<(), Error> {
        tracing::warn!("the slots are made again, and their sequences are read again");
        let model = self.generator.model();
        // the memory of the lost ones is free before the others take as much
        self.slots = model.slots(1, 1)?;
        self.slots = model.slots(self.options.slots, model.config().max_position_embeddings)?;
        // what other slots saved cannot be restored
        self.prefixes.clear();
        self.freed.fill(0);
        self.sequences.iter_mut().flatten().for_each(Sequence::restart);
        Ok(())
    }
}
