//! Inputs with the results that every backend must compute.

use jetmoe_checkpoint::ModelConfig;
use jetmoe_rt::{GenerationOptions, Generator, Model, Request, TensorMap, TokenBatch};
use ndarray::{Array2, ArrayD};

use crate::Result;

/// Expected outputs for a batch.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Source, for reports: a golden file, or the Candle reference.
    pub source: String,
    /// The inputs: several sequences, padded on the left.
    pub batch: TokenBatch,
    /// Outputs of the first step, including the cache.
    pub tensors: TensorMap,
    /// One cached step after it: the tokens, `[batch]`, and the expected logits, `[batch, 1, vocab_size]`.
    pub next: Option<(Vec<u32>, ArrayD<f32>)>,
    /// Greedy continuation of every sequence, including the end-of-sequence token.
    pub greedy: Option<Vec<Vec<u32>>>,
}

/// Tokens of the greedy continuation.
const GREEDY_TOKENS: usize = 24;

impl Expectation {
    /// Runs another model, usually the reference, on a batch of random sequences of different lengths.
    ///
    /// # Errors
    /// An error of that model's backend.
    pub fn from_model(model: &Model) -> Result<Self> {
        Self::for_batch(model, sample_batch(model.config())?)
    }

    /// [`Expectation::from_model`] for a given batch.
    ///
    /// # Errors
    /// An error of that model's backend.
    pub fn for_batch(model: &Model, batch: TokenBatch) -> Result<Self> {
        let mut session = model.session()?;
        let outputs = session.step(&batch)?;
        let mut tensors = outputs.tensors().clone();
        tensors.extend(session.cache()?);
        let (next, greedy) = if model.task() == jetmoe_artifact::Task::CausalLm {
            let tokens = (0..batch.batch_size())
                .map(|row| Ok(best(outputs.last_logits(row)?.iter().copied())))
                .collect::<Result<Vec<u32>>>()?;
            let step = session.step(&TokenBatch::next_tokens(&tokens))?;
            let logits = step.logits()?.to_owned().into_dyn();
            (Some((tokens, logits)), Some(greedy(model, &batch, GREEDY_TOKENS)?))
        } else {
            (None, None)
        };
        Ok(Expectation { source: model.backend(), batch, tensors, next, greedy })
    }
}

/// Greedy continuation of every sequence of a batch, including the end-of-sequence token.
pub(crate) fn greedy(model: &Model, batch: &TokenBatch, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let prompts: Vec<Vec<u32>> = batch
        .ids()
        .rows()
        .into_iter()
        .zip(batch.mask().rows())
        .map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, counts)| **counts).map(|(id, _)| *id).collect())
        .collect();
    let options = GenerationOptions::default().with_max_new_tokens(tokens);
    let generated = Generator::new(model)?.run_batch(Request::batch(prompts).with_options(options))?;
    Ok(generated.into_iter().map(|continuation| continuation.token_ids).collect())
}

/// Index of the largest value; the first of equal ones.
pub(crate) fn best(values: impl Iterator<Item = f32>) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index as u32, value);
        }
    }
    best.0
}

/// Three left-padded sequences of 14, 11 and 6 tokens, with ids from the whole vocabulary.
fn sample_batch(config: &ModelConfig) -> Result<TokenBatch> {
    const LENGTHS: [usize; 3] = [14, 11, 6];
    let longest = LENGTHS[0].min(config.max_position_embeddings);
    // a classifier finds the end of a sequence by the padding token, so no other token may have its id
    let padding = config.pad_token_id.unwrap_or(0);
    let rows = if config.pad_token_id.is_none()
        && config.architecture == jetmoe_checkpoint::Architecture::SequenceClassification
    {
        1
    } else {
        LENGTHS.len()
    };
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut mask = Array2::from_elem((rows, longest), false);
    let ids = Array2::from_shape_fn((rows, longest), |(row, column)| {
        let counts = column + LENGTHS[row].min(longest) >= longest;
        mask[[row, column]] = counts;
        // xorshift64: any deterministic spread of ids is sufficient
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let id = (state % config.vocab_size as u64) as u32;
        match (counts, id == padding) {
            (false, _) => padding,
            (true, false) => id,
            (true, true) => (id + 1) % config.vocab_size as u32,
        }
    });
    Ok(TokenBatch::masked(ids, mask)?)
}

#[cfg(test)]
mod tests;
