//! A step: what it reads, its results, and what happens if it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jetmoe_rt::{CancellationGuard, CancellationToken, Error, SlotTokens, SlotsOutput};

use super::Worker;
use crate::engine::panics::{guarded, message};
use crate::engine::schedule::{Portion, Reader, plan};
use crate::engine::sequence::{Progress, Sequence};
use crate::engine::{JobError, TokenExperts};

/// A sequence that is stepped alone until its slot holds as many tokens as the step that failed would have given it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Isolated {
    pub(super) slot: usize,
    until: usize,
}

impl Worker {
    /// Reads the next tokens of some sequences.
    ///
    /// # Errors
    /// The slots are lost.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        let portions = self.plan_prepared()?;
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
        self.shared.outbox().flush();
        let (slots, start) = (&mut self.slots, Instant::now());
        let last_ended = self.step_ended.take();
        let result = catch_unwind(AssertUnwindSafe(|| slots.step(&parts)));
        drop(guards);
        match result {
            Ok(Ok(output)) => {
                let (ended, tokens) = (Instant::now(), portions.iter().map(|portion| portion.tokens).sum());
                self.step_ended = Some(ended);
                let metrics = self.metrics();
                metrics.step(portions.len(), tokens, ended - start);
                if let Some(last_ended) = last_ended {
                    metrics.between_steps(start.saturating_duration_since(last_ended));
                }
                self.advance(&portions, &output)
            }
            // its sequences end before the next step
            Ok(Err(Error::Cancelled)) if token.is_cancelled() => Ok(()),
            Ok(Err(error)) => self.step_failed(&portions, error.into()),
            Err(panic) => self.step_failed(&portions, JobError::Panic { message: message(panic.as_ref()) }),
        }
    }

    /// What the next step reads. All its slots are prepared.
    fn plan_prepared(&mut self) -> Result<Vec<Portion>, Error> {
        loop {
            let portions = self.plan();
            let is_new = |portion: &&Portion| {
                self.sequences[portion.slot].as_ref().is_some_and(|sequence| !sequence.has_started())
            };
            let Some(new) = portions.iter().find(is_new).map(|portion| portion.slot) else {
                return Ok(portions);
            };
            // it may have fewer tokens to read afterwards
            self.prepare(new)?;
        }
    }

    /// What the next step reads.
    fn plan(&mut self) -> Vec<Portion> {
        while let Some(isolated) = self.isolated.front().copied() {
            let sequence = self.sequences[isolated.slot].as_ref();
            let reader =
                sequence.filter(|sequence| sequence.tokens_read() < isolated.until).map(Sequence::reader);
            if let Some(reader) = reader {
                let left = isolated.until
                    - (self.sequences[isolated.slot].as_ref()).map_or(0, Sequence::tokens_read);
                let portions = plan(&[reader], self.options.prefill_chunk);
                return portions
                    .into_iter()
                    .map(|it| Portion { tokens: it.tokens.min(left), ..it })
                    .collect();
            }
            self.isolated.pop_front();
        }
        let ready = self.running().filter(|sequence| !self.waits_for_prompt(sequence));
        let readers: Vec<Reader> = ready.map(Sequence::reader).collect();
        plan(&readers, self.options.prefill_chunk)
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
        let parts = portions.iter().enumerate();
        let results: Vec<_> =
            parts.map(|(part, portion)| (portion.slot, self.advance_one(*portion, output, part))).collect();
        // before tokens are kept, which takes longer
        self.shared.outbox().flush();
        let mut failed = Vec::new();
        for (slot, result) in results {
            match result {
                Ok(Progress::Open) => {}
                Ok(Progress::PromptRead) => self.keep(slot),
                Ok(Progress::Ended) => self.free(slot),
                Err(error) => failed.push((slot, error)),
            }
        }
        // last, because it may make the slots again, and then no result is of use
        failed.into_iter().try_for_each(|(slot, error)| self.fail(slot, error))
    }

    fn advance_one(
        &mut self,
        portion: Portion,
        output: &SlotsOutput,
        part: usize,
    ) -> Result<Progress, JobError> {
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
            tracing::warn!(
                sequences = portions.len(),
                "a step failed, and is repeated for each sequence alone: {error}"
            );
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
}
