//! Inputs of one call, with their validation.

use candle_core::{Device, Result as TensorResult, Tensor};
use jetmoe_checkpoint::ModelConfig;

use crate::{Error, Result};

/// Inputs of one call, row-major. `cached` is the length of the cache that it continues.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// New tokens, `[batch_size, sequence_length]`.
    pub input_ids: &'a [i64],
    /// 1 for every token, cached or new, and 0 for padding, `[batch_size, cached + sequence_length]`.
    pub attention_mask: &'a [i64],
    /// Position of every new token in its sequence, `[batch_size, sequence_length]`; any for padding, 0 by convention.
    pub position_ids: &'a [i64],
    /// Sequences in the batch.
    pub batch_size: usize,
    /// New tokens of each sequence.
    pub sequence_length: usize,
}

impl Inputs<'_> {
    pub(crate) fn check(&self, config: &ModelConfig, cached: usize) -> Result<()> {
        let &Inputs { batch_size, sequence_length, .. } = self;
        if batch_size == 0 || sequence_length == 0 {
            return Err(Error::EmptyInputs { batch_size, sequence_length });
        }
        let vocabulary = 0..=config.vocab_size as i64 - 1;
        check("input_ids", self.input_ids, batch_size, sequence_length, vocabulary)?;
        check("attention_mask", self.attention_mask, batch_size, cached + sequence_length, 0..=1)?;
        check("position_ids", self.position_ids, batch_size, sequence_length, 0..=i64::MAX)
    }

    pub(crate) fn input_ids(&self) -> TensorResult<Tensor> {
        Tensor::from_slice(self.input_ids, (self.batch_size, self.sequence_length), &Device::Cpu) // [batch, seq]
    }

    pub(crate) fn attention_mask(&self, cached: usize) -> TensorResult<Tensor> {
        let total = cached + self.sequence_length;
        Tensor::from_slice(self.attention_mask, (self.batch_size, total), &Device::Cpu) // [batch, cached + seq]
    }

    pub(crate) fn position_ids(&self) -> TensorResult<Tensor> {
        Tensor::from_slice(self.position_ids, (self.batch_size, self.sequence_length), &Device::Cpu) // [batch, seq]
    }
}

fn check(
    input: &'static str,
    values: &[i64],
    rows: usize,
    columns: usize,
    allowed: std::ops::RangeInclusive<i64>,
) -> Result<()> {
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(Error::InputLength { input, rows, columns, found: values.len() });
    }
    match values.iter().position(|value| !allowed.contains(value)) {
        None => Ok(()),
        Some(place) => Err(Error::InputValue {
            input,
            sequence: place / columns,
            index: place % columns,
            found: values[place],
            expected: match *allowed.end() {
                i64::MAX => format!("at least {}", allowed.start()),
                end => format!("{} to {end}", allowed.start()),
            },
        }),
    }
}
