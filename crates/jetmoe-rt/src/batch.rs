//! The tokens of one step.

use std::ops::Range;

use ndarray::{Array2, s};

use crate::{Error, Result};

/// Token ids of several sequences with a mask, padded on the left to the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    ids: Array2<u32>,
    mask: Array2<bool>,
}

impl TokenBatch {
    /// Pads sequences on the left with `pad_token_id` to the length of the longest one.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] if there is no sequence or an empty one.
    pub fn left_padded<S: AsRef<[u32]>>(sequences: &[S], pad_token_id: u32) -> Result<Self> {
        let lengths = sequences.iter().map(|sequence| sequence.as_ref().len());
        if let Some(index) = lengths.clone().position(|length| length == 0) {
            return Err(Error::EmptyPrompt { index });
        }
        let longest = lengths.max().ok_or(Error::EmptyPrompt { index: 0 })?;
        let mut ids = Array2::from_elem((sequences.len(), longest), pad_token_id);
        let mut mask = Array2::from_elem((sequences.len(), longest), false);
        for (row, sequence) in sequences.iter().enumerate() {
            let sequence = sequence.as_ref();
            let padding = longest - sequence.len();
            for (column, id) in sequence.iter().enumerate() {
                ids[[row, padding + column]] = *id;
                mask[[row, padding + column]] = true;
            }
        }
        Ok(TokenBatch { ids, mask })
    }

    /// One token per sequence: the next step of a generation.
    pub fn next_tokens(ids: &[u32]) -> Self {
        let shape = (ids.len(), 1);
        TokenBatch {
            ids: Array2::from_shape_fn(shape, |(row, _)| ids[row]),
            mask: Array2::from_elem(shape, true),
        }
    }

    /// Ids `[batch, tokens]` with a mask of the same shape, false for padding.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::EmptyPrompt`] if there is no token.
    pub fn masked(ids: Array2<u32>, mask: Array2<bool>) -> Result<Self> {
        if ids.shape() != mask.shape() {
            return Err(Error::Shape {
                tensor: "attention_mask".to_owned(),
                expected: ids.shape().to_vec(),
                found: mask.shape().to_vec(),
            });
        }
        if ids.is_empty() {
            return Err(Error::EmptyPrompt { index: 0 });
        }
        Ok(TokenBatch { ids, mask })
    }

    /// Some columns of every sequence.
    ///
    /// # Panics
    /// If the range ends behind [`TokenBatch::sequence_length`].
    pub fn columns(&self, columns: Range<usize>) -> Self {
        TokenBatch {
            ids: self.ids.slice(s![.., columns.clone()]).to_owned(),
            mask: self.mask.slice(s![.., columns]).to_owned(),
        }
    }

    /// Token ids, `[batch, tokens]`.
    pub fn ids(&self) -> &Array2<u32> {
        &self.ids
    }

    /// False for padding, `[batch, tokens]`.
    pub fn mask(&self) -> &Array2<bool> {
        &self.mask
    }

    /// Number of sequences.
    pub fn batch_size(&self) -> usize {
        self.ids.nrows()
    }

    /// Number of tokens per sequence, including padding.
    pub fn sequence_length(&self) -> usize {
        self.ids.ncols()
    }
}
