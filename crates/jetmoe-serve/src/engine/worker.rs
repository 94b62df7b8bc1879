//! The thread of an engine: drives the slots.
//!
//! Between two steps it ends jobs whose client left or whose deadline passed, and gives free slots to the next jobs. A step that
//! fails is repeated for each of its sequences alone; a sequence that fails alone fails its job. If the slots are lost, by a panic
//! of the backend, they are made again, and every sequence reads its tokens again.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use jetmoe_rt::{CancellationGuard, CancellationToken, Error, Generator, SavedTokens, SlotTokens, Slots, SlotsOutput};

use super::experts::Experts;
use super::metrics::{EngineMetrics, ExpertCounters};
use super::options::cache_bytes;
use super::panics::{guarded, message};
use super::prefix::{Payload, PrefixTree};
use super::schedule::{FreeSlot, Place, Portion, Reader, choose_slot, plan};
use super::sequence::{Pending, Progress, Sequence};
use super::shared::Shared;
use super::{EngineOptions, JobError, StartError, TokenExperts};

impl Payload for SavedTokens {
    fn bytes(&self) -> u64 {
        SavedTokens::bytes(self)
    }
}

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
    prefixes: PrefixTree<SavedTokens>,
    /// Bytes of keys and values of a token.
    token_bytes: u64,
    experts: Option<(Experts, ExpertCounters)>,
    /// Sequences of a step that failed, which are stepped alone, one after the other.
    isolated: VecDeque<Isolated>,
}

/// A sequence that is stepped alone until its slot holds as many tokens as the step that failed would have given it.
#[derive(Debug, Clone, Copy)]
struct Isolated {
    slot: usize,
    until: usize,
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
            token_bytes: cache_bytes(generator.model(), 1),
            experts: experts.map(|experts| (experts.clone(), shared.metrics().experts(&experts))),
            generator,
            options,
            shared,
            slots,
            sequences: (0..count).map(|_| None).collect(),
            freed: vec![0; count],
            clock: 0,
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
        let metrics = self.shared.metrics();
        self.shared.end().into_iter().for_each(|pending| pending.fail(JobError::Ended, metrics));
    }

    /// Runs jobs until none can come.
    ///
    /// # Errors
    /// The slots are lost.
    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let free = self.sequences.iter().filter(|sequence| sequence.is_none()).count();
            let is_running = free < self.sequences.len();
            let work = self.shared.next_work(free, is_running);
            for pending in work.interrupted {
                pending.end_interrupted(self.shared.metrics());
            }
            for pending in work.admitted {
                self.admit(pending)?;
            }
            if work.is_over {
                return Ok(());
            }
            if self.shared.is_stopped() {
                self.fail_all(|| JobError::ShuttingDown);
                let metrics = self.shared.metrics();
                self.shared.drain().into_iter().for_each(|pending| pending.fail(JobError::ShuttingDown, metrics));
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

    /// Gives a job a free slot, with what it can reuse.
    fn admit(&mut self, pending: Pending) -> Result<(), Error> {
        let prompt = &pending.prompt()[..pending.reusable()];
        let free = self.sequences.iter().enumerate().filter(|(_, sequence)| sequence.is_none());
        let free: Vec<FreeSlot> = free
            .map(|(slot, _)| FreeSlot {
                slot,
                common: common_length(self.slots.token_ids(slot), prompt),
                freed: self.freed[slot],
            })
            .collect();
        let kept = self.prefixes.longest(prompt);
        let Some(place) = choose_slot(&free, pending.prompt().len(), kept) else {
            pending.fail(JobError::Ended, self.metrics());
            return Ok(());
        };
        let (slot, prepared) = match place {
            Place::Slot { slot, tokens } => (slot, self.slots.truncate(slot, tokens).map(|()| tokens)),
            Place::Kept { slot } => (slot, self.restore(slot, prompt)),
        };
        let cached = match prepared {
            Ok(cached) => cached,
            Err(error) => {
                tracing::warn!("a slot could not be prepared: {error}");
                self.renew_slots()?;
                0
            }
        };
        self.clock += 1;
        self.sequences[slot] = Some(Sequence::new(pending, slot, self.clock, cached, self.shared.metrics()));
        self.report();
        Ok(())
    }

    /// Gives a slot the longest kept prefix of a prompt. Returns the number of its tokens: fewer if it could not be restored.
    ///
    /// # Errors
    /// The slot could not be emptied.
    fn restore(&mut self, slot: usize, prompt: &[u32]) -> Result<usize, Error> {
        let own = common_length(self.slots.token_ids(slot), prompt);
        let found = self.prefixes.find(prompt);
        let mut parts = found.parts.iter().filter(|part| part.first + part.tokens > own).peekable();
        self.slots.truncate(slot, parts.peek().map_or(own, |part| part.first))?;
        let restored = parts.try_for_each(|part| match self.prefixes.payload(part.payload) {
            Some(payload) => self.slots.restore(slot, payload, part.tokens),
            None => Ok(()),
        });
        let held = self.slots.token_ids(slot);
        if restored.is_ok() && held == &prompt[..found.tokens] {
            return Ok(found.tokens);
        }
        tracing::warn!(error = ?restored.err(), "kept prefixes are dropped, because one could not be restored");
        self.prefixes.clear();
        self.slots.truncate(slot, 0)?;
        Ok(0)
    }

    /// Keeps the tokens that a slot holds for later prompts.
    fn keep(&mut self, slot: usize) {
        if self.options.prefix_memory == 0 || !self.slots.is_joint() {
            return;
        }
        let (limit, token_bytes, slots) = (self.prefixes.limit(), self.token_bytes, &self.slots);
        let result = self.prefixes.insert(slots.token_ids(slot), |range| {
            let bytes = token_bytes.saturating_mul(range.len() as u64);
            if bytes > limit { Ok(None) } else { slots.save(slot, range) }
        });
        if let Err(error) = result {
            tracing::warn!("a prefix could not be kept: {error}");
        }
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

    /// What the next step reads.
    fn plan(&mut self) -> Vec<Portion> {
        while let Some(isolated) = self.isolated.front().copied() {
            let sequence = self.sequences[isolated.slot].as_ref();
            let reader = sequence.filter(|sequence| sequence.tokens_read() < isolated.until).map(Sequence::reader);
            if let Some(reader) = reader {
                let left = isolated.until - (self.sequences[isolated.slot].as_ref()).map_or(0, Sequence::tokens_read);
                let portions = plan(&[reader], self.options.prefill_chunk);
                return portions.into_iter().map(|it| Portion { tokens: it.tokens.min(left), ..it }).collect();
            }
            self.isolated.pop_front();
        }
        let readers: Vec<Reader> = self.running().map(Sequence::reader).collect();
        plan(&readers, self.options.prefill_chunk)
    }

    /// Computes a step.
    fn step(&mut self) -> Result<(), Error> {
        let portions = self.plan();
        if portions.is_empty() {
            return Ok(());
        }
        let token = CancellationToken::new();
        let guards = self.cancel_if_unwanted(&portions, &token);
        self.slots.set_cancellation(&token);
        let sequences = &self.sequences;
        let parts: Vec<SlotTokens<'_>> = portions
            .iter()
            .filter_map(|portion| Some(sequences[portion.slot].as_ref()?.part(portion.tokens)))
            .collect();
        let (slots, start) = (&mut self.slots, Instant::now());
        let result = catch_unwind(AssertUnwindSafe(|| slots.step(&parts)));
        drop(guards);
        match result {
            Ok(Ok(output)) => {
                let tokens = portions.iter().map(|portion| portion.tokens).sum();
                self.metrics().step(portions.len(), tokens, start.elapsed());
                self.advance(&portions, &output)
            }
            // its sequences end before the next step
            Ok(Err(Error::Cancelled)) if token.is_cancelled() => Ok(()),
            Ok(Err(error)) => self.step_failed(&portions, error.into()),
            Err(panic) => {
                self.step_failed(&portions, JobError::Panic { message: message(panic.as_ref()) })
            }
        }
    }

    /// Cancels a step as soon as all its jobs have lost their clients or passed their deadlines, or the engine is to stop. The
    /// guards end that.
    fn cancel_if_unwanted(&self, portions: &[Portion], step: &CancellationToken) -> Vec<CancellationGuard> {
        let wanted = Arc::new(AtomicUsize::new(portions.len()));
        let sequences = portions.iter().filter_map(|portion| self.sequences[portion.slot].as_ref());
        let guards = sequences.map(|sequence| {
            let (wanted, step) = (Arc::clone(&wanted), step.clone());
            sequence.interrupt().on_cancel(move || {
                if wanted.fetch_sub(1, Ordering::AcqRel) == 1 {
                    step.cancel();
                }
            })
        });
        let stop = step.clone();
        let stop = self.shared.stop().on_cancel(move || stop.cancel());
        guards.chain([stop]).collect()
    }

    /// Takes the results of a step.
    fn advance(&mut self, portions: &[Portion], output: &SlotsOutput) -> Result<(), Error> {
        for (part, portion) in portions.iter().enumerate() {
            match self.advance_one(*portion, output, part) {
                Ok(Progress::Open) => {}
                Ok(Progress::PromptRead) => self.keep(portion.slot),
                Ok(Progress::Ended) => self.free(portion.slot),
                Err(error) => self.fail(portion.slot, error)?,
            }
        }
        Ok(())
    }

    fn advance_one(&mut self, portion: Portion, output: &SlotsOutput, part: usize) -> Result<Progress, JobError> {
        let Some(sequence) = &mut self.sequences[portion.slot] else { return Ok(Progress::Open) };
        let experts = match &mut self.experts {
            None => TokenExperts::default(),
            Some((experts, counters)) => {
                let found = experts.read(output, part)?;
                counters.add(&found);
                if sequence.reports_experts() { found.last() } else { TokenExperts::default() }
            }
        };
        let (metrics, model) = (self.shared.metrics(), self.generator.model());
        guarded(|| sequence.advance(portion.tokens, (output, part), experts, metrics, || model.backend()))
    }

    /// Repeats a step that failed for each of its sequences alone, or fails the job of one that failed alone.
    ///
    /// # Errors
    /// The slots are lost.
    fn step_failed(&mut self, portions: &[Portion], error: JobError) -> Result<(), Error> {
        self.metrics().step_failed();
        let alone = self.isolated.pop_front();
        if alone.is_none() {
            tracing::warn!(sequences = portions.len(), "a step failed, and is repeated for each sequence alone: {error}");
            let isolated = portions.iter().filter_map(|portion| {
                let sequence = self.sequences[portion.slot].as_ref()?;
                Some(Isolated { slot: portion.slot, until: sequence.tokens_read() + portion.tokens })
            });
            self.isolated = isolated.collect();
        }
        if matches!(error, JobError::Panic { .. }) {
            // nothing is known about what they hold
            self.renew_slots()?;
        }
        alone.map_or(Ok(()), |isolated| self.fail(isolated.slot, error))
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
        self.slots = model.slots(self.options.slots, model.config().max_position_embeddings)?;
        // what other slots saved cannot be restored
        self.prefixes.clear();
        self.freed.fill(0);
        self.sequences.iter_mut().flatten().for_each(Sequence::restart);
        Ok(())
    }
}

/// Number of first tokens that two sequences have in common.
fn common_length(first: &[u32], second: &[u32]) -> usize {
    first.iter().zip(second).take_while(|(first, second)| first == second).count()
}
