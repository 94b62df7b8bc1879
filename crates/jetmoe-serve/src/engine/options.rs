//! Sizes of an engine, and the memory that they take.

use std::io;

use jetmoe_rt::{Error, Model, ModelConfig};

/// Sizes of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Sequences that share steps, at least 1; 16 by default.
    pub slots: usize,
    /// Most tokens of a sequence, prompt and continuation, at least 1. `None`, the default, is the number of positions of the
    /// model, and more than that is as many. [`LoadOptions::max_sequence_length`](jetmoe_rt::LoadOptions) limits the model itself.
    pub capacity: Option<usize>,
    /// Most tokens of prompts that one step reads beside the next tokens of other sequences, at least 1; 256 by default. A longer
    /// chunk reads prompts faster, and delays the other sequences more.
    pub prefill_chunk: usize,
    /// Most jobs that wait, at least 1; 256 by default.
    pub queue: usize,
    /// Bytes for prefixes that are kept for later requests, beside what the slots hold anyway; 1 GiB by default, 0 for none.
    pub prefix_memory: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { slots: 16, capacity: None, prefill_chunk: 256, queue: 256, prefix_memory: 1 << 30 }
    }
}

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The model has no slots, or an option is not valid.
    #[error(transparent)]
    Model(#[from] Error),
    /// The slots will not fit in memory.
    #[error(
        "{slots} slots of {capacity} tokens take {} of memory for keys and values, kept prefixes {}, and {} are left\n  {}",
        megabytes(*cache), megabytes(*prefixes), megabytes(*available), advice(*slots, *capacity, *cache, *prefixes, *available)
    )]
    Memory {
        /// Requested slots.
        slots: usize,
        /// Tokens of each.
        capacity: usize,
        /// Bytes of keys and values of all slots.
        cache: u64,
        /// Bytes for kept prefixes.
        prefixes: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// The operating system has no thread for the engine.
    #[error("the thread of the engine could not be started")]
    Thread(#[source] io::Error),
}

/// Sizes that would fit.
fn advice(slots: usize, capacity: usize, cache: u64, prefixes: u64, available: u64) -> String {
    let slots = (slots as u64).max(1);
    let one = cache / slots;
    let token = one / (capacity as u64).max(1);
    let fewer = available.saturating_sub(prefixes) / one.max(1);
    let shorter = available.saturating_sub(prefixes) / token.saturating_mul(slots).max(1);
    match (fewer, shorter) {
        (1.., _) => format!("{fewer} slots of this capacity fit, or as many slots of {shorter} tokens"),
        (0, 1..) => format!("as many slots of {shorter} tokens fit; or keep less for prefixes"),
        (0, 0) => "keep less for prefixes, and take fewer slots and a smaller capacity".to_owned(),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

impl EngineOptions {
    /// Sets [`EngineOptions::slots`].
    #[must_use]
    pub fn with_slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Sets [`EngineOptions::capacity`].
    #[must_use]
    pub fn with_capacity(mut self, capacity: impl Into<Option<usize>>) -> Self {
        self.capacity = capacity.into();
        self
    }

    /// Sets [`EngineOptions::prefill_chunk`].
    #[must_use]
    pub fn with_prefill_chunk(mut self, prefill_chunk: usize) -> Self {
        self.prefill_chunk = prefill_chunk;
        self
    }

    /// Sets [`EngineOptions::queue`].
    #[must_use]
    pub fn with_queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// Sets [`EngineOptions::prefix_memory`].
    #[must_use]
    pub fn with_prefix_memory(mut self, prefix_memory: u64) -> Self {
        self.prefix_memory = prefix_memory;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Option`] for the first invalid value.
    pub fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("slots", self.slots),
            ("capacity", self.capacity.unwrap_or(1)),
            ("prefill_chunk", self.prefill_chunk),
            ("queue", self.queue),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            None => Ok(()),
            Some((option, _)) => Err(Error::Option { option, found: "0".to_owned(), expected: "at least 1" }),
        }
    }

    /// Most tokens of a sequence of a model.
    pub(crate) fn capacity_of(&self, config: &ModelConfig) -> usize {
        let positions = config.max_position_embeddings;
        self.capacity.map_or(positions, |capacity| capacity.min(positions))
    }

    /// Refuses slots that will not fit in `available` bytes; `None` if it is unknown how many there are.
    pub(super) fn check_memory(
        &self,
        model: &Model,
        capacity: usize,
        available: Option<u64>,
    ) -> Result<(), StartError> {
        let Some(available) = available else {
            tracing::warn!("the memory that is left is not known, so the slots are not compared with it");
            return Ok(());
        };
        let cache = model.slot_bytes(capacity).saturating_mul(self.slots as u64);
        let needed = cache.saturating_add(self.prefix_memory);
        tracing::debug!(cache, prefixes = self.prefix_memory, available, "memory for slots");
        if needed <= available {
            return Ok(());
        }
        let (slots, prefixes) = (self.slots, self.prefix_memory);
        Err(StartError::Memory { slots, capacity, cache, prefixes, available })
    }
}
