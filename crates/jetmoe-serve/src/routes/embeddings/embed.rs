//! Computes embeddings: inputs of similar length share steps, within a bound of their memory.

use std::ops::Range;

use jetmoe_rt::{CancellationToken, Error, Model, Profile, TokenBatch};

use super::input::Input;
use super::pooling::{Normalization, Pool, Pooling};
use crate::compute::OUTPUT_BYTES;
use crate::compute::encode::encode_text;
use crate::compute::steps::{CHUNK, for_each_step};
use crate::error::{ApiError, ApiResult};

/// Most tokens of all inputs of a request together, as in OpenAI's API.
const MAX_TOKENS: usize = 300_000;

/// Most tokens of a step, padding included. It bounds the memory of a step.
const STEP_TOKENS: usize = 2048;

/// How texts become vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmbeddingOptions {
    pub(crate) pooling: Pooling,
    pub(crate) normalization: Normalization,
}

/// The embedding of one input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Embedding {
    /// One vector, or one for each token without pooling, `[hidden_size]` each.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Number of tokens of the input, special tokens included.
    pub(crate) tokens: usize,
}

/// The embeddings of inputs, in their order.
///
/// # Errors
/// An input that the model cannot read, [`Error::Cancelled`], or an error of the backend.
pub(crate) fn embed(
    model: &Model,
    inputs: &[Input],
    options: EmbeddingOptions,
    cancellation: &CancellationToken,
) -> ApiResult<Vec<Embedding>> {
    let encoded = encode(model, inputs)?;
    check_output(model, &encoded, options.pooling)?;
    let mut embeddings: Vec<Embedding> =
        encoded.iter().map(|ids| Embedding { vectors: Vec::new(), tokens: ids.len() }).collect();
    let mut by_length: Vec<usize> = (0..encoded.len()).collect();
    by_length.sort_by_key(|index| encoded[*index].len());
    for batch in batches(&by_length, |index| encoded[index].len(), shares_steps(model)) {
        let indices = &by_length[batch];
        let sequences: Vec<&[u32]> = indices.iter().map(|index| encoded[*index].as_slice()).collect();
        let pools = run(model, &sequences, options.pooling, cancellation)?;
        for (index, pool) in indices.iter().zip(pools) {
            embeddings[*index].vectors = pool.finish(options.normalization);
        }
    }
    check_finite(model, &embeddings)?;
    Ok(embeddings)
}

/// Whether a step computes the same bits for a sequence alone and with others.
fn shares_steps(model: &Model) -> bool {
    model.profile() == Some(Profile::Native)
}

/// Token ids of every input.
fn encode(model: &Model, inputs: &[Input]) -> ApiResult<Vec<Vec<u32>>> {
    let limit = model.config().max_position_embeddings;
    let mut total = 0_usize;
    let mut encoded = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        let named = |error: Error| ApiError::from(error).or_param("input");
        let ids = match input {
            Input::Text(text) => encode_text(model, index, text).map_err(named)?,
            Input::Tokens(ids) => ids.clone(),
        };
        check_ids(model, index, &ids).map_err(named)?;
        total = total.saturating_add(ids.len());
        if total > MAX_TOKENS {
            let message = format!("the inputs have more than {MAX_TOKENS} tokens together");
            return Err(ApiError::invalid("input", message).with_advice("send them in several requests"));
        }
        if ids.len() > limit {
            return Err(named(Error::TooLong { index, tokens: ids.len(), limit }));
        }
        encoded.push(ids);
    }
    Ok(encoded)
}

/// Refuses more numbers than a response may have.
fn check_output(model: &Model, encoded: &[Vec<u32>], pooling: Pooling) -> ApiResult<()> {
    let vectors: usize = match pooling {
        Pooling::Mean | Pooling::Last => encoded.len(),
        Pooling::None => encoded.iter().map(Vec::len).sum(),
    };
    let bytes = vectors.saturating_mul(model.config().hidden_size).saturating_mul(size_of::<f32>());
    if bytes <= OUTPUT_BYTES {
        return Ok(());
    }
    let message = format!("the vectors would have {bytes} bytes, more than the {OUTPUT_BYTES} of a response");
    Err(ApiError::invalid("input", message).with_advice("send fewer tokens in one request"))
}

fn check_ids(model: &Model, row: usize, ids: &[u32]) -> Result<(), Error> {
    if ids.is_empty() {
        return Err(Error::EmptyPrompt { index: row });
    }
    let vocab_size = model.config().vocab_size;
    match ids.iter().position(|id| *id as usize >= vocab_size) {
        None => Ok(()),
        Some(column) => Err(Error::TokenOutOfRange { id: ids[column], row, column, vocab_size }),
    }
}

/// Ranges of sequences, sorted by length, that share steps.
fn batches(sorted: &[usize], length: impl Fn(usize) -> usize, shares_steps: bool) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for end in 1..=sorted.len() {
        // the next one is the longest, to whose length the others are padded; a step reads at most a chunk of each
        let fits = sorted.get(end).is_some_and(|next| {
            let columns = length(*next).min(CHUNK);
            shares_steps && (end + 1 - start).saturating_mul(columns) <= STEP_TOKENS
        });
        if !fits {
            batches.push(start..end);
            start = end;
        }
    }
    batches
}

/// Runs the model over sequences, chunk by chunk.
fn run(
    model: &Model,
    sequences: &[&[u32]],
    pooling: Pooling,
    cancellation: &CancellationToken,
) -> Result<Vec<Pool>, Error> {
    let batch = TokenBatch::left_padded(sequences, model.config().pad_token_id.unwrap_or(0))?;
    let mut pools = vec![Pool::new(pooling); sequences.len()];
    for_each_step(model, &batch, cancellation, |tokens, output| {
        let hidden = output.last_hidden_state()?; // [batch, tokens, hidden]
        for (pool, (rows, mask)) in pools.iter_mut().zip(hidden.outer_iter().zip(tokens.mask().rows())) {
            let tokens = rows.outer_iter().zip(mask).filter(|(_, counts)| **counts);
            tokens.for_each(|(row, _)| pool.push(row));
        }
        Ok(())
    })?;
    Ok(pools)
}

fn check_finite(model: &Model, embeddings: &[Embedding]) -> Result<(), Error> {
    let is_finite = |embedding: &Embedding| embedding.vectors.iter().flatten().all(|value| value.is_finite());
    match embeddings.iter().position(|embedding| !is_finite(embedding)) {
        None => Ok(()),
        Some(index) => Err(Error::Logits {
            backend: model.backend(),
            problem: format!("the hidden states of input {index} are not all finite"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Range, STEP_TOKENS, batches};

    fn of_lengths(lengths: &[usize], shares_steps: bool) -> Vec<Range<usize>> {
        let sorted: Vec<usize> = (0..lengths.len()).collect();
        batches(&sorted, |index| lengths[index], shares_steps)
    }

    #[test]
    fn a_step_has_a_bounded_number_of_tokens() {
        let lengths: Vec<usize> = (1..400).collect();
        let ranges = of_lengths(&lengths, true);
        assert_eq!(ranges.iter().map(ExactSizeIterator::len).sum::<usize>(), lengths.len());
        for range in &ranges {
            let longest = lengths[range.end - 1].min(CHUNK);
            assert!(range.len() * longest <= STEP_TOKENS, "{range:?}");
        }
        assert!(ranges.len() < 60, "{}", ranges.len());
        assert_eq!(of_lengths(&[CHUNK * 9; 10], true), [0..8, 8..10]);
    }

    #[test]
    fn inputs_do_not_share_steps_where_others_would_change_their_bits() {
        assert_eq!(of_lengths(&[1, 1, 2], false), [0..1, 1..2, 2..3]);
        assert_eq!(of_lengths(&[], true), Vec::<std::ops::Range<usize>>::new());
    }
}
