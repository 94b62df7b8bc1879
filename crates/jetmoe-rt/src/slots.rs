//! Slots: sequences of different lengths that share steps, for continuous batching.

use std::ops::Range;
use std::time::Duration;

use jetmoe_artifact::OutputName;
use jetmoe_backend::contract::cache_bytes;
use jetmoe_backend::{CancellationToken, SavedCache, SlotInputs, SlotSession, TensorMap};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, Ix2, s};

use crate::error::at_least_one;
use crate::session::step_error;
use crate::{Error, Model, Result, Session, TokenBatch};

/// A fixed number of places for sequences, which share steps. A sequence begins, grows and ends in its slot whatever the others
/// do: a step may read a chunk of one prompt, the next token of ten sequences, and nothing of the rest.
///
/// With a `native` graph one call of the graph computes all sequences of a step, without padding, and what it computes for a
/// sequence depends on its tokens alone: its logits have the same bits in any company and in chunks of any size, in ONNX Runtime
/// and in tract, if it is loaded [batch-invariant](jetmoe_backend::LoadOptions::batch_invariant), which matters on processors with
/// AMX.
///
/// ```no_run
/// use jetmoe_rt::{LoadOptions, Model, SlotTokens};
///
/// let model = Model::load("path/to/artifact", &LoadOptions::default())?;
/// let mut slots = model.slots(2, 1024)?;
/// let (first, second): (&[u32], &[u32]) = (&[1, 503, 261], &[1, 947]);
/// let output = slots.step(&[SlotTokens::last(0, first), SlotTokens::last(1, second)])?;
/// println!("{} {}", output.logits(0)?, output.logits(1)?);
/// # Ok::<(), jetmoe_rt::Error>(())
/// ```
#[derive(Debug)]
pub struct Slots {
    /// Tokens that the cache of each slot holds.
    cached: Vec<Vec<u32>>,
    capacity: usize,
    vocab_size: usize,
    cache: SlotCache,
    /// Stops steps.
    cancellation: CancellationToken,
}

#[derive(Debug)]
enum SlotCache {
    /// One call of the graph continues any of its rows.
    Joint(Box<dyn SlotSession>),
    /// A session for each slot, for graphs without such a call.
    Separate(Vec<Session>),
}

/// What a step reads in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotTokens<'a> {
    /// The slot. A step names a slot once.
    pub slot: usize,
    /// The tokens, at least one. They follow those that the slot holds.
    pub token_ids: &'a [u32],
    /// How many of these tokens, from the last one backwards, have their next-token logits returned.
    pub logits: usize,
}

impl<'a> SlotTokens<'a> {
    /// Tokens of which only the last one has its logits returned.
    pub fn last(slot: usize, token_ids: &'a [u32]) -> Self {
        SlotTokens { slot, token_ids, logits: 1 }
    }

    /// Tokens without logits: a chunk of a prompt that goes on.
    pub fn silent(slot: usize, token_ids: &'a [u32]) -> Self {
        SlotTokens { slot, token_ids, logits: 0 }
    }
}

impl Model {
    /// Empty slots for `count` sequences of at most `capacity` tokens each, see [`Slots`]. Joint slots take all their memory at
    /// once, see [`Model::slot_bytes`].
    ///
    /// # Errors
    /// [`Error::Option`] for 0 slots or a capacity of 0, [`Error::NoCache`] for a task without a cache, or an error of the
    /// backend.
    pub fn slots(&self, count: usize, capacity: usize) -> Result<Slots> {
        at_least_one("slots", count)?;
        at_least_one("capacity", capacity)?;
        if !self.task().has_cache() {
            return Err(Error::NoCache);
        }
        let capacity = capacity.min(self.config().max_position_embeddings);
        let cache = match self.graph().start_slots(count, capacity)? {
            Some(session) => SlotCache::Joint(session),
            None => SlotCache::Separate((0..count).map(|_| self.session()).collect::<Result<_>>()?),
        };
        Ok(Slots {
            cached: vec![Vec::new(); count],
            capacity,
            vocab_size: self.config().vocab_size,
            cache,
            cancellation: CancellationToken::new(),
        })
    }
}

impl Model {
    /// Bytes of the key/value cache of one sequence of so many tokens; 0 for a task without a cache.
    pub fn slot_bytes(&self, tokens: usize) -> u64 {
        cache_bytes(self.graph().signature(), tokens)
    }
}

impl Slots {
    /// Number of slots.
    pub fn count(&self) -> usize {
        self.cached.len()
    }

    /// Most tokens of a sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether one call of the graph computes all sequences of a step. Otherwise the graph has no input for it, and a step calls
    /// it for each sequence.
    pub fn is_joint(&self) -> bool {
        matches!(self.cache, SlotCache::Joint(_))
    }

    /// The tokens that a slot holds; empty for a slot that does not exist.
    pub fn token_ids(&self, slot: usize) -> &[u32] {
        self.cached.get(slot).map_or(&[], Vec::as_slice)
    }

    /// Sets the token that stops the following steps, as [`Session::set_cancellation`].
    pub fn set_cancellation(&mut self, token: &CancellationToken) {
        self.cancellation = token.clone();
    }

    /// Reads tokens in some of the slots.
    ///
    /// # Errors
    /// [`Error::NoSequence`], [`Error::EmptyPrompt`], [`Error::TokenOutOfRange`] with the index of the part as row,
    /// [`Error::TooLong`] beyond the capacity, [`Error::Option`] for a slot that is named twice, [`Error::Cancelled`], or an
    /// error of the backend. All slots are then unchanged.
    pub fn step(&mut self, parts: &[SlotTokens<'_>]) -> Result<SlotsOutput> {
        self.check(parts)?;
        if self.cancellation.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let output = match &mut self.cache {
            _ if parts.is_empty() => SlotsOutput { tensors: Vec::new(), parts: Vec::new() },
            SlotCache::Joint(session) => joint_step(&mut **session, &self.cached, parts, &self.cancellation)?,
            SlotCache::Separate(sessions) => {
                separate_steps(sessions, &self.cached, parts, &self.cancellation)?
            }
        };
        for part in parts {
            self.cached[part.slot].extend_from_slice(part.token_ids);
        }
        Ok(output)
    }

    fn check(&self, parts: &[SlotTokens<'_>]) -> Result<()> {
        let mut is_named = vec![false; self.count()];
        for (index, part) in parts.iter().enumerate() {
            let cached = self.cached_in(part.slot)?.len();
            if part.token_ids.is_empty() {
                return Err(Error::EmptyPrompt { index });
            }
            if std::mem::replace(&mut is_named[part.slot], true) {
                let found = format!("slot {} twice", part.slot);
                return Err(Error::Option { option: "parts", found, expected: "each slot once" });
            }
            let tokens = cached + part.token_ids.len();
            if tokens > self.capacity {
                return Err(Error::TooLong { index, tokens, limit: self.capacity });
            }
            let vocab_size = self.vocab_size;
            if let Some(column) = part.token_ids.iter().position(|id| *id as usize >= vocab_size) {
                let id = part.token_ids[column];
                return Err(Error::TokenOutOfRange { id, row: index, column, vocab_size });
            }
        }
        Ok(())
    }

    fn cached_in(&self, slot: usize) -> Result<&Vec<u32>> {
        let sequences = self.count();
        self.cached.get(slot).ok_or(Error::NoSequence { sequence: slot, sequences })
    }

    /// Keeps the first `tokens` tokens of a slot and removes the rest; 0 empties it.
    ///
    /// # Errors
    /// [`Error::NoSequence`], [`Error::Truncation`] for more tokens than the slot holds, or an error of the backend.
    pub fn truncate(&mut self, slot: usize, tokens: usize) -> Result<()> {
        let cached = self.cached_in(slot)?.len();
        if tokens > cached {
            return Err(Error::Truncation { tokens, cached });
        }
        if let SlotCache::Separate(sessions) = &mut self.cache {
            sessions[slot].truncate(tokens)?;
        }
        self.cached[slot].truncate(tokens);
        Ok(())
    }

    /// How long the last step took in the engine itself, see
    /// [`GraphSession::backend_time`](crate::GraphSession::backend_time); `None` if unknown.
    pub fn backend_time(&self) -> Option<Duration> {
        match &self.cache {
            SlotCache::Joint(session) => session.backend_time(),
            SlotCache::Separate(_) => None,
        }
    }

    /// A copy of keys and values of some tokens of a slot; `None` if the slots are not [joint](Slots::is_joint).
    ///
    /// # Errors
    /// [`Error::NoSequence`], [`Error::Truncation`] for tokens that the slot does not hold, or an error of the backend.
    pub fn save(&self, slot: usize, tokens: Range<usize>) -> Result<Option<SavedTokens>> {
        let cached = self.cached_in(slot)?.len();
        if tokens.end > cached {
            return Err(Error::Truncation { tokens: tokens.end, cached });
        }
        let SlotCache::Joint(session) = &self.cache else { return Ok(None) };
        let token_ids = self.cached[slot][tokens.clone()].to_vec();
        Ok(Some(SavedTokens { first: tokens.start, token_ids, cache: session.save(slot, tokens)? }))
    }

    /// Appends the first `tokens` saved tokens to a slot, which must hold as many tokens as were before the saved ones: the same
    /// tokens, or the results are those of another text.
    ///
    /// # Errors
    /// [`Error::NoSequence`], [`Error::Truncation`] for more tokens than were saved, [`Error::TooLong`] beyond the capacity,
    /// [`Error::Option`] for tokens that were saved at another place or for slots that are not joint, or an error of the backend.
    pub fn restore(&mut self, slot: usize, saved: &SavedTokens, tokens: usize) -> Result<()> {
        let cached = self.cached_in(slot)?.len();
        let wrong = |found: String| Error::Option {
            option: "saved",
            found,
            expected: "tokens that joint slots saved at the place where they continue the slot",
        };
        if tokens > saved.token_ids.len() {
            return Err(Error::Truncation { tokens, cached: saved.token_ids.len() });
        }
        if cached != saved.first {
            return Err(wrong(format!("tokens from {} on, for a slot with {cached}", saved.first)));
        }
        if cached + tokens > self.capacity {
            return Err(Error::TooLong { index: slot, tokens: cached + tokens, limit: self.capacity });
        }
        let SlotCache::Joint(session) = &mut self.cache else {
            return Err(wrong("tokens of other slots".to_owned()));
        };
        session.restore((slot, cached), &saved.cache, tokens)?;
        self.cached[slot].extend_from_slice(&saved.token_ids[..tokens]);
        Ok(())
    }
}

/// Runs all parts in one call. The tokens whose logits are returned come last, as `logits_to_keep` requires: the others of each
/// part first, in a sequence of their own.
fn joint_step(
    session: &mut dyn SlotSession,
    cached: &[Vec<u32>],
    parts: &[SlotTokens<'_>],
    cancellation: &CancellationToken,
) -> Result<SlotsOutput> {
    let mut inputs = SlotInputs {
        input_ids: Vec::new(),
        position_ids: Vec::new(),
        sequences: Vec::new(),
        logits: 0,
        cancellation: cancellation.clone(),
    };
    let mut places: Vec<Part> =
        parts.iter().map(|_| Part { output: 0, tokens: [0..0, 0..0], logits: 0..0 }).collect();
    for half in 0..2 {
        for (part, place) in parts.iter().zip(&mut places) {
            let silent = part.token_ids.len() - part.logits.min(part.token_ids.len());
            let range = if half == 0 { 0..silent } else { silent..part.token_ids.len() };
            let start = inputs.input_ids.len();
            place.tokens[half] = start..start + range.len();
            if half == 1 {
                place.logits = inputs.logits..inputs.logits + range.len();
                inputs.logits += range.len();
            }
            if range.is_empty() {
                continue;
            }
            let first = cached[part.slot].len() + range.start;
            inputs.sequences.push([part.slot, first, range.len()]);
            inputs.position_ids.extend((first..first + range.len()).map(|position| position as i64));
            inputs.input_ids.extend(part.token_ids[range].iter().copied().map(i64::from));
        }
    }
    let tensors = session.run(&inputs).map_err(step_error)?;
    // a backend may return the logits of more tokens than it was asked for
    let rows =
        tensors.get(&OutputName::Logits).map_or(0, |logits| logits.shape().get(1).copied().unwrap_or(0));
    let skipped = rows.checked_sub(inputs.logits).ok_or(Error::Backend(jetmoe_backend::Error::Contract {
        problem: format!("logits of {rows} tokens instead of {}", inputs.logits),
    }))?;
    for place in &mut places {
        place.logits = place.logits.start + skipped..place.logits.end + skipped;
    }
    Ok(SlotsOutput { tensors: vec![tensors], parts: places })
}

/// Runs each part in the session of its slot. After an error all sessions are as before.
fn separate_steps(
    sessions: &mut [Session],
    cached: &[Vec<u32>],
    parts: &[SlotTokens<'_>],
    cancellation: &CancellationToken,
) -> Result<SlotsOutput> {
    let mut output = SlotsOutput { tensors: Vec::new(), parts: Vec::new() };
    for (index, part) in parts.iter().enumerate() {
        let session = &mut sessions[part.slot];
        session.set_cancellation(cancellation.clone());
        let step = TokenBatch::left_padded(&[part.token_ids], 0).and_then(|batch| match part.logits {
            0 | 1 => session.prefill(&batch, batch.sequence_length()),
            _ => session.step(&batch),
        });
        match step {
            Ok(step) => {
                let tokens = part.token_ids.len();
                let rows = step.get(OutputName::Logits).map_or(0, |logits| logits.len_of(Axis(1)));
                let logits = rows.saturating_sub(part.logits)..rows;
                output.tensors.push(step.into_tensors());
                output.parts.push(Part { output: index, tokens: [0..tokens, tokens..tokens], logits });
            }
            Err(error) => {
                for part in &parts[..index] {
                    sessions[part.slot].truncate(cached[part.slot].len())?;
                }
                return Err(error);
            }
        }
    }
    Ok(output)
}

/// Keys and values of consecutive tokens of a sequence, which [`Slots::save`] copied.
#[derive(Debug)]
pub struct SavedTokens {
    first: usize,
    token_ids: Vec<u32>,
    cache: SavedCache,
}

impl SavedTokens {
    /// How many tokens the sequence has before these.
    pub fn first(&self) -> usize {
        self.first
    }

    /// The tokens.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Memory of keys and values.
    pub fn bytes(&self) -> u64 {
        self.cache.bytes()
    }
}

/// What a step of [`Slots`] computed, by the index of each part.
#[derive(Debug)]
pub struct SlotsOutput {
    tensors: Vec<TensorMap>,
    parts: Vec<Part>,
}

/// Where the results of a part are.
#[derive(Debug)]
struct Part {
    /// Index of its tensors.
    output: usize,
    /// Columns of its tokens, in their order.
    tokens: [Range<usize>; 2],
    /// Columns of its logits.
    logits: Range<usize>,
}

impl SlotsOutput {
    /// Next-token logits of a part, of as many of its last tokens as it asked for, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::NoSequence`] for an index beyond the parts, [`Error::MissingOutput`] for a task without logits.
    pub fn logits(&self, part: usize) -> Result<ArrayView2<'_, f32>> {
        let (part, tensors) = self.part(part)?;
        let missing = || Error::MissingOutput {
            name: OutputName::Logits,
            available: tensors.keys().map(ToString::to_string).collect(),
        };
        let logits = columns(tensors.get(&OutputName::Logits).ok_or_else(missing)?).ok_or_else(missing)?;
        Ok(logits.slice_move(s![part.logits.clone(), ..]))
    }

    /// Another output of a part that has a row for each token, `[tokens, width]`, as routers' choices; `None` if the graph does
    /// not have it.
    ///
    /// # Errors
    /// [`Error::NoSequence`] for an index beyond the parts.
    pub fn get(&self, name: OutputName, part: usize) -> Result<Option<Array2<f32>>> {
        let (part, tensors) = self.part(part)?;
        let Some(rows) = tensors.get(&name).and_then(columns) else { return Ok(None) };
        let indices: Vec<usize> = part.tokens.iter().cloned().flatten().collect();
        Ok(Some(rows.select(Axis(0), &indices)))
    }

    fn part(&self, index: usize) -> Result<(&Part, &TensorMap)> {
        let none = || Error::NoSequence { sequence: index, sequences: self.parts.len() };
        let part = self.parts.get(index).ok_or_else(none)?;
        Ok((part, self.tensors.get(part.output).ok_or_else(none)?))
    }
}

/// `[1, columns, width]` as `[columns, width]`.
fn columns(tensor: &ArrayD<f32>) -> Option<ArrayView2<'_, f32>> {
    let is_one_row = matches!(tensor.shape(), [1, _, _]);
    is_one_row.then(|| tensor.index_axis(Axis(0), 0).into_dimensionality::<Ix2>().ok())?
}
