//! Runs a batch in steps.

use std::ops::Range;

use jetmoe_artifact::{ObservedValue, OutputName};
use jetmoe_rt::{CancellationToken, Model, Session, StepOutput, TokenBatch};

use crate::{Error, ObservedModel, ObservedToken, Result};

/// How a batch is split into steps.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StepOptions {
    /// Columns of the batch that a step of their own puts into the cache, before all others; 0, the default, for none. Fewer
    /// than the batch has.
    pub cached: usize,
    /// The most columns of each following step, at least 1; `None`, the default, for one step.
    pub chunk: Option<usize>,
    /// Stops the steps.
    pub cancellation: CancellationToken,
}

impl StepOptions {
    /// Sets [`StepOptions::cached`].
    #[must_use]
    pub fn with_cached(mut self, cached: usize) -> Self {
        self.cached = cached;
        self
    }

    /// Sets [`StepOptions::chunk`].
    #[must_use]
    pub fn with_chunk(mut self, chunk: impl Into<Option<usize>>) -> Self {
        self.chunk = chunk.into();
        self
    }

    /// Sets [`StepOptions::cancellation`].
    #[must_use]
    pub fn with_cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// The columns of each step.
    ///
    /// # Errors
    /// [`Error::Option`] for a chunk of 0, for as many cached columns as there are, and for steps of a model without a cache.
    fn columns(&self, model: &Model, length: usize) -> Result<Vec<Range<usize>>> {
        let option = |option, found, expected: &str| {
            Err(Error::Option { option, found, expected: expected.to_owned() })
        };
        let chunk = self.chunk.unwrap_or(length);
        if chunk == 0 {
            return option("chunk", 0, "at least 1");
        }
        if self.cached >= length {
            return option(
                "cached",
                self.cached,
                &format!("fewer than the {length} tokens of the longest sequence"),
            );
        }
        if !model.task().has_cache() {
            if self.cached > 0 {
                return option("cached", self.cached, "0: the model has no cache");
            }
            if chunk < length {
                return option(
                    "chunk",
                    chunk,
                    &format!("at least {length}, all tokens: the model has no cache"),
                );
            }
        }
        let first = (self.cached > 0).then_some(0..self.cached);
        let starts = (self.cached..length).step_by(chunk);
        Ok(first
            .into_iter()
            .chain(starts.map(|start| start..length.min(start.saturating_add(chunk))))
            .collect())
    }
}

/// A batch with the steps that compute it.
pub(crate) struct Steps<'a> {
    model: &'a Model,
    batch: &'a TokenBatch,
    columns: Vec<Range<usize>>,
    session: Session,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(model: &'a Model, batch: &'a TokenBatch, options: &StepOptions) -> Result<Self> {
        check_positions(model, batch)?;
        let columns = options.columns(model, batch.sequence_length())?;
        let mut session = model.session()?;
        session.set_cancellation(options.cancellation.clone());
        Ok(Steps { model, batch, columns, session })
    }

    /// Runs the steps; `read` gets the columns and the outputs of each.
    pub(crate) fn run(
        &mut self,
        mut read: impl FnMut(Range<usize>, &StepOutput) -> Result<()>,
    ) -> Result<()> {
        for columns in &self.columns {
            // one step, which computes no logits but the last
            let output = self.session.prefill(&self.batch.columns(columns.clone()), columns.len())?;
            read(columns.clone(), &output)?;
        }
        Ok(())
    }

    /// The tokens of every sequence.
    pub(crate) fn tokens(&self) -> Vec<Vec<ObservedToken>> {
        let tokenizer = self.model.tokenizer();
        let step_of = |column| self.columns.iter().position(|columns| columns.contains(&column)).unwrap_or(0);
        let rows = self.batch.ids().rows().into_iter().zip(self.batch.mask().rows());
        let rows = rows.map(|(ids, mask)| {
            let mut positions = 0..;
            let tokens = ids.iter().zip(mask).enumerate().map(|(column, (id, counts))| ObservedToken {
                id: *id,
                text: tokenizer.and_then(|tokenizer| tokenizer.token(*id)),
                position: if *counts { positions.next() } else { None },
                step: step_of(column),
            });
            tokens.collect()
        });
        rows.collect()
    }
}

/// What is said about a model.
pub(crate) fn observed_model(model: &Model, value: ObservedValue) -> Result<ObservedModel> {
    let not_observed = || Error::NotObserved { backend: model.backend(), value };
    let (precision, profile) = model.precision().zip(model.profile()).ok_or_else(not_observed)?;
    Ok(ObservedModel { backend: model.backend(), precision, profile })
}

/// The refusal of an output that is missing.
pub(crate) fn not_observed(model: &Model, value: ObservedValue) -> Error {
    Error::NotObserved { backend: model.backend(), value }
}

/// The refusal of an output of another shape.
pub(crate) fn other_shape(model: &Model, name: OutputName, found: &[usize], expected: &[usize]) -> Error {
    Error::Output {
        backend: model.backend(),
        name,
        found: found.iter().map(|size| *size as f64).collect(),
        expected: format!("the shape {expected:?}"),
    }
}

/// Refuses a batch with more columns than the model has positions, before anything of its size is allocated.
fn check_positions(model: &Model, batch: &TokenBatch) -> Result<()> {
    let (tokens, limit) = (batch.sequence_length(), model.config().max_position_embeddings);
    if tokens <= limit {
        return Ok(());
    }
    // the longest sequence has no padding
    let index = batch.mask().rows().into_iter().position(|row| row.iter().all(|counts| *counts));
    Err(jetmoe_rt::Error::TooLong { index: index.unwrap_or(0), tokens, limit }.into())
}

/// The tokens of a text, special ones included. A text may have any length: for [`routing_of_windows`](crate::routing_of_windows) it
/// may be longer than the model's positions.
///
/// # Errors
/// [`jetmoe_rt::Error::NoTokenizer`], or a text that the tokenizer refuses.
pub fn encode(model: &Model, text: &str) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer().ok_or(jetmoe_rt::Error::NoTokenizer)?;
    Ok(tokenizer.encode(text, true)?)
}

/// Token ids as a batch, padded on the left with the model's padding token.
///
/// # Errors
/// [`jetmoe_rt::Error::EmptyPrompt`] if there is no sequence or an empty one.
pub fn batch(model: &Model, sequences: &[Vec<u32>]) -> Result<TokenBatch> {
    // padding has no effect, whatever its id
    Ok(TokenBatch::left_padded(sequences, model.config().pad_token_id.unwrap_or(0))?)
}
