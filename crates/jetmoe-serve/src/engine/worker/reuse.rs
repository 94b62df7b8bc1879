//! What a sequence reuses: the tokens that its slot holds, and kept prefixes.

use jetmoe_rt::{Error, SavedTokens};

use super::Worker;
use crate::engine::prefix::Payload;
use crate::engine::sequence::Sequence;

impl Payload for SavedTokens {
    fn bytes(&self) -> u64 {
        SavedTokens::bytes(self)
    }
}

impl Worker {
    /// Prepares the slot of a sequence that is about to read its first tokens: keeps what the slot holds of the prompt, or restores
    /// what is kept of it by now, whichever is longer. So of several jobs with one prompt that came together the later ones find what
    /// the first has read.
    ///
    /// # Errors
    /// The slots are lost.
    pub(super) fn prepare(&mut self, slot: usize) -> Result<(), Error> {
        let Some(mut sequence) = self.sequences[slot].take() else { return Ok(()) };
        let prompt = sequence.reusable_prompt();
        let own = common_length(self.slots.token_ids(slot), prompt);
        let prepared = if self.prefixes.longest(prompt) > own {
            self.restore(slot, own, prompt)
        } else {
            self.slots.truncate(slot, own).map(|()| own)
        };
        let cached = prepared.as_ref().copied().unwrap_or(0);
        sequence.start(cached, self.metrics());
        self.sequences[slot] = Some(sequence);
        match prepared {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!("a slot could not be prepared: {error}");
                self.renew_slots()
            }
        }
    }

    /// Whether a sequence begins after another has read its prompt, because it can then reuse at least half of its own, and more than
    /// now. The other reads before it anyway.
    pub(super) fn waits_for_prompt(&self, sequence: &Sequence) -> bool {
        let prompt = sequence.reusable_prompt();
        if sequence.has_started() || prompt.is_empty() || !self.slots.is_joint() {
            return false;
        }
        let own = common_length(self.slots.token_ids(sequence.slot()), prompt);
        let available = self.prefixes.longest(prompt).max(own);
        let mut reading = self.running().filter(|other| other.has_started() && !other.has_prompt());
        reading.any(|other| {
            let common = common_length(other.tokens(), prompt);
            let bytes = self.token_bytes.saturating_mul(other.tokens().len() as u64);
            common > available && common >= prompt.len() / 2 && bytes <= self.prefixes.limit()
        })
    }

    /// Gives a slot, which holds the first `own` tokens of a prompt, its longest kept prefix. Returns the number of its tokens; none
    /// if it could not be restored.
    ///
    /// # Errors
    /// The slot could not be emptied.
    fn restore(&mut self, slot: usize, own: usize, prompt: &[u32]) -> Result<usize, Error> {
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
    pub(super) fn keep(&mut self, slot: usize) {
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
}

/// Number of first tokens that two sequences have in common.
pub(super) fn common_length(first: &[u32], second: &[u32]) -> usize {
    first.iter().zip(second).take_while(|(first, second)| first == second).count()
}
