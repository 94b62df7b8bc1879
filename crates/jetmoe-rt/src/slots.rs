//! Slots: sequences of different lengths that share steps, for continuous batching.

use std::ops::Range;

use jetmoe_artifact::OutputName;
use jetmoe_backend::{CancellationToken, TensorMap};
use ndarray::{Array2, ArrayView2, ArrayViewD, Axis, Ix2, s};

use crate::error::at_least_one;
use crate::{Error, Model, Result, Session, TokenBatch};

/// A fixed number of places for sequences, which share steps. A sequence begins, grows and ends in its slot whatever the others
/// do: a step may read a chunk of one prompt, the next token of ten sequences, and nothing of the rest.
///
/// What a step computes for a sequence depends on its tokens alone with a `native` graph: its logits have the same bits in any
/// company and in chunks of any size, in ONNX Runtime and in tract, as long as no AMX tiles are in use.
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
    sessions: Vec<Session>,
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
    /// Empty slots for `count` sequences of at most `capacity` tokens each, see [`Slots`].
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
        let sessions = (0..count).map(|_| self.session()).collect::<Result<_>>()?;
        let capacity = capacity.min(self.config().max_position_embeddings);
        Ok(Slots { cached: vec![Vec::new(); count], capacity, sessions })
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
        false
    }

    /// The tokens that a slot holds; empty for a slot that does not exist.
    pub fn token_ids(&self, slot: usize) -> &[u32] {
        self.cached.get(slot).map_or(&[], Vec::as_slice)
    }

    /// Sets the token that stops the following steps, as [`Session::set_cancellation`].
    pub fn set_cancellation(&mut self, token: &CancellationToken) {
        for session in &mut self.sessions {
            session.set_cancellation(token.clone());
        }
    }

    /// Reads tokens in some of the slots.
    ///
    /// # Errors
    /// [`Error::NoSequence`], [`Error::EmptyPrompt`], [`Error::TokenOutOfRange`] with the index of the part as row,
    /// [`Error::TooLong`] beyond the capacity, [`Error::Option`] for a slot that is named twice, [`Error::Cancelled`], or an
    /// error of the backend. All slots are then unchanged.
    pub fn step(&mut self, parts: &[SlotTokens<'_>]) -> Result<SlotsOutput> {
        self.check(parts)?;
        let mut output = SlotsOutput { tensors: Vec::new(), parts: Vec::new() };
        for (index, part) in parts.iter().enumerate() {
            match self.step_alone(part) {
                Ok(step) => {
                    let tokens = part.token_ids.len();
                    let rows = step.get(&OutputName::Logits).map_or(0, |logits| logits.len_of(Axis(1)));
                    let logits = rows.saturating_sub(part.logits)..rows;
                    output.tensors.push(step);
                    output.parts.push(Part { output: index, tokens: [0..tokens, tokens..tokens], logits });
                }
                Err(error) => {
                    for part in &parts[..index] {
                        self.sessions[part.slot].truncate(self.cached[part.slot].len())?;
                    }
                    return Err(error);
                }
            }
        }
        for part in parts {
            self.cached[part.slot].extend_from_slice(part.token_ids);
        }
        Ok(output)
    }

    fn step_alone(&mut self, part: &SlotTokens<'_>) -> Result<TensorMap> {
        let batch = TokenBatch::left_padded(&[part.token_ids], 0)?;
        let session = &mut self.sessions[part.slot];
        let output = match part.logits {
            0 | 1 => session.prefill(&batch, batch.sequence_length())?,
            _ => session.step(&batch)?,
        };
        Ok(output.into_tensors())
    }

    fn check(&self, parts: &[SlotTokens<'_>]) -> Result<()> {
        for (index, part) in parts.iter().enumerate() {
            let cached = self.cached_in(part.slot)?.len();
            if part.token_ids.is_empty() {
                return Err(Error::EmptyPrompt { index });
            }
            if parts[..index].iter().any(|other| other.slot == part.slot) {
                let found = format!("slot {} twice", part.slot);
                return Err(Error::Option { option: "parts", found, expected: "each slot once" });
            }
            let tokens = cached + part.token_ids.len();
            if tokens > self.capacity {
                return Err(Error::TooLong { index, tokens, limit: self.capacity });
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
        self.sessions[slot].truncate(tokens)?;
        self.cached[slot].truncate(tokens);
        Ok(())
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
        Ok(None)
    }

    /// Appends the first `tokens` saved tokens to a slot, which must hold as many tokens as were before the saved ones: the same
    /// tokens, or the results are those of another text.
    ///
    /// # Errors
    /// [`Error::NoSequence`], [`Error::Truncation`] for more tokens than were saved, [`Error::TooLong`] beyond the capacity,
    /// [`Error::Option`] for tokens that were saved at another place or by slots that are not joint, or an error of the backend.
    pub fn restore(&mut self, slot: usize, saved: &SavedTokens, tokens: usize) -> Result<()> {
        self.cached_in(slot)?;
        let _ = (saved, tokens);
        Err(Error::Option {
            option: "saved",
            found: "tokens of other slots".to_owned(),
            expected: "tokens that these slots saved",
        })
    }
}

/// Keys and values of consecutive tokens of a sequence, which [`Slots::save`] copied.
#[derive(Debug)]
pub struct SavedTokens {
    first: usize,
    token_ids: Vec<u32>,
    bytes: u64,
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
        self.bytes
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
fn columns(tensor: &ndarray::ArrayD<f32>) -> Option<ArrayView2<'_, f32>> {
    let view: ArrayViewD<'_, f32> = tensor.view();
    (view.ndim() == 3).then(|| view.index_axis_move(Axis(0), 0).into_dimensionality::<Ix2>().ok())?
}
