//! A session: the key/value cache of one batch of sequences, advanced step by step.

use std::ops::Range;
use std::time::Duration;

use jetmoe_artifact::OutputName;
use jetmoe_backend::{CancellationToken, GraphSession, LogitsToKeep, StepInputs, TensorMap};
use jetmoe_checkpoint::ModelConfig;
use ndarray::{
    Array2, ArrayD, ArrayView, ArrayView1, ArrayView2, ArrayView3, Axis, Dimension, concatenate, s,
};

use crate::error::at_least_one;
use crate::{Error, Result, TokenBatch};

/// One batch of sequences: its key/value cache and the mask of its tokens.
#[derive(Debug)]
pub struct Session {
    graph: Box<dyn GraphSession>,
    config: ModelConfig,
    has_cache: bool,
    /// `[batch, tokens so far]`
    mask: Option<Array2<bool>>,
    /// Stops steps.
    cancellation: CancellationToken,
}

impl Session {
    pub(crate) fn new(graph: Box<dyn GraphSession>, config: ModelConfig, has_cache: bool) -> Self {
        Session { graph, config, has_cache, mask: None, cancellation: CancellationToken::new() }
    }

    /// Sets the token that stops the following steps. A step reads it before it begins, and while it computes as often as
    /// the backend can, see [`GraphSession::run`]; [`Session::prefill`] also reads it between chunks.
    pub fn set_cancellation(&mut self, token: CancellationToken) {
        self.cancellation = token;
    }

    /// Runs the model over new tokens of every sequence and appends them to the cache. A task without a cache sees only
    /// the tokens of this step.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`], [`Error::TooLong`], [`Error::Shape`] for another batch size than before,
    /// [`Error::Cancelled`], or an error of the backend. The session is then unchanged.
    pub fn step(&mut self, tokens: &TokenBatch) -> Result<StepOutput> {
        let mask = self.mask_with(tokens)?;
        self.run(tokens, 0..tokens.sequence_length(), &mask, LogitsToKeep::All)
    }

    /// As [`Session::step`], in several steps of at most `chunk` tokens per sequence, so that the memory of a step does not
    /// grow with the prompt. The output is that of the last step; of the logits only [`StepOutput::last_logits`] is sure to
    /// be available. A task without a cache reads all tokens in one step.
    ///
    /// # Errors
    /// As [`Session::step`]; invalid tokens are rejected before anything is computed. [`Error::Option`] for a chunk of 0.
    /// The session is then unchanged.
    pub fn prefill(&mut self, tokens: &TokenBatch, chunk: usize) -> Result<StepOutput> {
        at_least_one("prefill_chunk", chunk)?;
        let mask = self.mask_with(tokens)?;
        let past = self.past_length();
        let result = self.run_in_chunks(tokens, &mask, chunk);
        if result.is_err() && self.has_cache {
            self.truncate(past)?;
        }
        result
    }

    fn run_in_chunks(
        &mut self,
        tokens: &TokenBatch,
        mask: &Array2<bool>,
        chunk: usize,
    ) -> Result<StepOutput> {
        let length = tokens.sequence_length();
        let mut done = 0;
        if self.has_cache {
            while length - done > chunk {
                self.run(tokens, done..done + chunk, mask, LogitsToKeep::Last)?;
                done += chunk;
            }
        }
        self.run(tokens, done..length, mask, LogitsToKeep::Last)
    }

    /// Keeps the first `tokens` cached tokens per sequence, including padding, and removes the rest from the cache. With 0
    /// the session is empty, and its next batch may have another size.
    ///
    /// # Errors
    /// [`Error::Truncation`] for more tokens than [`Session::past_length`], [`Error::NoCache`] for a task without a
    /// cache, or an error of the backend. The session is then unchanged.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if !self.has_cache {
            return Err(Error::NoCache);
        }
        let cached = self.past_length();
        if tokens > cached {
            return Err(Error::Truncation { tokens, cached });
        }
        if tokens < cached {
            self.graph.truncate(tokens)?;
            self.mask = self
                .mask
                .take()
                .filter(|_| tokens > 0)
                .map(|mask| mask.slice_move(s![.., ..tokens]).as_standard_layout().into_owned());
        }
        Ok(())
    }

    /// Removes one sequence from the batch, so that another can take its place: the next step with tokens in this row
    /// begins a new one. A step may have tokens for some rows and padding for the others ([`TokenBatch::masked`]).
    ///
    /// # Errors
    /// [`Error::NoSequence`] for an index beyond the batch, [`Error::NoCache`] for a task without a cache.
    pub fn clear_sequence(&mut self, sequence: usize) -> Result<()> {
        if !self.has_cache {
            return Err(Error::NoCache);
        }
        let sequences = self.mask.as_ref().map_or(0, Array2::nrows);
        match &mut self.mask {
            Some(mask) if sequence < sequences => mask.row_mut(sequence).fill(false),
            _ => return Err(Error::NoSequence { sequence, sequences }),
        }
        Ok(())
    }

    /// Checks new tokens; returns the mask of cached and new tokens.
    fn mask_with(&self, tokens: &TokenBatch) -> Result<Array2<bool>> {
        if let Some(((row, column), id)) =
            tokens.ids().indexed_iter().find(|(_, id)| **id as usize >= self.config.vocab_size)
        {
            return Err(Error::TokenOutOfRange { id: *id, row, column, vocab_size: self.config.vocab_size });
        }
        let mask = match &self.mask {
            Some(past) if self.has_cache => concatenate(Axis(1), &[past.view(), tokens.mask().view()])
                .map_err(|_| Error::Shape {
                    tensor: "input_ids".to_owned(),
                    expected: vec![past.nrows(), tokens.sequence_length()],
                    found: tokens.ids().shape().to_vec(),
                })?,
            _ => tokens.mask().clone(),
        };
        let limit = self.config.max_position_embeddings;
        let lengths = mask.rows().into_iter().map(|row| row.iter().filter(|counts| **counts).count());
        if let Some((index, tokens)) = lengths.enumerate().find(|(_, length)| *length > limit) {
            return Err(Error::TooLong { index, tokens, limit });
        }
        Ok(mask)
    }

    /// Runs some columns of a batch. `mask` covers the cached tokens and the whole batch.
    fn run(
        &mut self,
        tokens: &TokenBatch,
        columns: Range<usize>,
        mask: &Array2<bool>,
        logits: LogitsToKeep,
    ) -> Result<StepOutput> {
        if self.cancellation.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let before = mask.ncols() - tokens.sequence_length();
        let mask = mask.slice(s![.., ..before + columns.end]);
        let tensors = self.graph.run(&StepInputs {
            input_ids: tokens.ids().slice(s![.., columns.clone()]).mapv(i64::from),
            attention_mask: mask.mapv(i64::from),
            position_ids: positions(mask).slice(s![.., before + columns.start..]).to_owned(),
            logits,
            cancellation: self.cancellation.clone(),
        });
        let tensors = tensors.map_err(step_error)?;
        self.mask = Some(mask.to_owned());
        Ok(StepOutput { tensors })
    }

    /// Tokens in the cache per sequence, including padding.
    pub fn past_length(&self) -> usize {
        match &self.mask {
            Some(mask) if self.has_cache => mask.ncols(),
            _ => 0,
        }
    }

    /// How long the last step took in the engine itself, see [`GraphSession::backend_time`].
    pub fn backend_time(&self) -> Option<Duration> {
        self.graph.backend_time()
    }

    /// A copy of the cache, see [`GraphSession::cache`].
    ///
    /// # Errors
    /// An error of the backend.
    pub fn cache(&self) -> Result<TensorMap> {
        Ok(self.graph.cache()?)
    }
}

/// The error of a step: that it was cancelled is no error of the backend.
pub(crate) fn step_error(error: jetmoe_backend::Error) -> Error {
    match error {
        jetmoe_backend::Error::Cancelled { .. } => Error::Cancelled,
        error => Error::Backend(error),
    }
}

/// Position of every token: the number of tokens before it in its sequence; 0 for leading padding.
fn positions(mask: ArrayView2<'_, bool>) -> Array2<i64> {
    let mut positions = mask.mapv(i64::from);
    for mut row in positions.rows_mut() {
        let mut seen = 0;
        for position in &mut row {
            seen += *position;
            *position = (seen - 1).max(0);
        }
    }
    positions
}

/// The outputs of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutput {
    tensors: TensorMap,
}

impl StepOutput {
    /// An output by name; `None` if the graph does not have it.
    pub fn get(&self, name: OutputName) -> Option<&ArrayD<f32>> {
        self.tensors.get(&name)
    }

    /// Every output by name.
    pub fn tensors(&self) -> &TensorMap {
        &self.tensors
    }

    pub(crate) fn into_tensors(self) -> TensorMap {
        self.tensors
    }

    /// Next-token logits of every new token, `[batch, tokens, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::MissingOutput`] for a task without logits, [`Error::OtherOutput`] for a classifier.
    pub fn logits(&self) -> Result<ArrayView3<'_, f32>> {
        self.view(
            OutputName::Logits,
            "[batch, tokens, vocab_size]: a classifier has class logits, which `StepOutput::class_logits` returns",
        )
    }

    /// Next-token logits of a sequence's last token, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`StepOutput::logits`], and [`Error::NoSequence`] for a row beyond the batch.
    pub fn last_logits(&self, row: usize) -> Result<ArrayView1<'_, f32>> {
        self.logits_before_last(row, 0)
    }

    /// Next-token logits of the token `distance` before a sequence's last, `[vocab_size]`.
    pub(crate) fn logits_before_last(&self, row: usize, distance: usize) -> Result<ArrayView1<'_, f32>> {
        let logits = self.logits()?;
        let (batch_size, tokens, vocab_size) = logits.dim();
        if row >= batch_size {
            return Err(Error::NoSequence { sequence: row, sequences: batch_size });
        }
        let column = tokens.checked_sub(distance + 1).ok_or_else(|| Error::OutputShape {
            name: OutputName::Logits,
            expected: vec![batch_size, distance + 1, vocab_size],
            found: logits.shape().to_vec(),
        })?;
        Ok(logits.slice_move(s![row, column, ..]))
    }

    /// Class logits, `[batch, labels]`.
    ///
    /// # Errors
    /// [`Error::MissingOutput`] for a task without logits, [`Error::OtherOutput`] for a language model.
    pub fn class_logits(&self) -> Result<ArrayView2<'_, f32>> {
        self.view(
            OutputName::Logits,
            "[batch, labels]: a language model has next-token logits, which `StepOutput::logits` returns",
        )
    }

    /// Hidden state after the final norm, `[batch, tokens, hidden_size]`.
    ///
    /// # Errors
    /// [`Error::MissingOutput`] for a task without this output.
    pub fn last_hidden_state(&self) -> Result<ArrayView3<'_, f32>> {
        self.view(OutputName::LastHiddenState, "[batch, tokens, hidden_size]")
    }

    /// An output as a view of `D` dimensions, which `expected` lists.
    fn view<D: Dimension>(&self, name: OutputName, expected: &'static str) -> Result<ArrayView<'_, f32, D>> {
        let tensor = self.tensors.get(&name).ok_or_else(|| Error::MissingOutput {
            name,
            available: self.tensors.keys().map(ToString::to_string).collect(),
        })?;
        let found = || tensor.shape().to_vec();
        tensor.view().into_dimensionality().map_err(|_| Error::OtherOutput { name, found: found(), expected })
    }
}

#[cfg(test)]
mod tests;
