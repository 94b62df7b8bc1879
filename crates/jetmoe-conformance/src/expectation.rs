//! Inputs with the results that every backend must compute.

use jetmoe_checkpoint::ModelConfig;
use jetmoe_rt::{GenerationOptions, Model, TensorMap, TokenBatch, TokenGenerator};
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
    let options = GenerationOptions { max_new_tokens: tokens, ..GenerationOptions::default() };
    let generated = TokenGenerator::new(model)?.generate(&prompts, &options)?;
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
mod tests {
    use jetmoe_artifact::{OutputName, Task};
    use jetmoe_checkpoint::Checkpoint;
    use jetmoe_testing::fixtures;
    use ndarray::Array1;

    use super::*;
    use crate::faulty::faulty_model;
    use crate::{BackendName, Tolerance, compare};

    #[test]
    fn a_model_meets_its_own_expectation_exactly() {
        for (fixture, task) in
            [("tiny", Task::CausalLm), ("odd", Task::Backbone), ("classifier", Task::SequenceClassification)]
        {
            let model = faulty_model(fixture, task, |_, _| ());
            let expectation = Expectation::from_model(&model).unwrap();
            assert_eq!(expectation.source, "faulty 1.0");
            let comparison =
                compare(BackendName::REFERENCE, &model, &expectation, Tolerance::Float32).unwrap();
            assert!(comparison.passed && comparison.not_compared.is_empty(), "{comparison:#?}");
            assert!(comparison.tensors.iter().all(|tensor| tensor.max_absolute_error == 0.0));
            assert_eq!(comparison.tokens, 14 + 11 + 6);
            assert_eq!(comparison.greedy.is_some(), task == Task::CausalLm);
        }
    }

    #[test]
    fn another_model_does_not_meet_it() {
        let expectation = Expectation::from_model(&faulty_model("tiny", Task::CausalLm, |_, _| ())).unwrap();
        let other = faulty_model("yarn-rope", Task::CausalLm, |_, _| ());
        let comparison = compare(BackendName::REFERENCE, &other, &expectation, Tolerance::Float32).unwrap();
        assert!(!comparison.passed);
        assert!(comparison.tensors.iter().all(|tensor| !tensor.passed), "{comparison:#?}");
        assert!(!comparison.greedy.unwrap().identical);
    }

    #[test]
    fn sample_tokens_are_padded_on_the_left_and_never_the_padding_token() {
        for fixture in ["tiny", "classifier", "jetmoe-mini-classifier"] {
            let checkpoint = Checkpoint::open(fixtures::checkpoint(fixture)).unwrap();
            let config = checkpoint.config();
            let batch = sample_batch(config).unwrap();
            assert_eq!(batch, sample_batch(config).unwrap());
            for (row, length) in [14, 11, 6].into_iter().enumerate() {
                let mask = Array1::from_shape_fn(14, |column| column + length >= 14);
                assert_eq!(batch.mask().row(row), mask);
            }
            let padding = config.pad_token_id.unwrap_or(0);
            for (id, counts) in batch.ids().iter().zip(batch.mask()) {
                assert!((*id as usize) < config.vocab_size);
                assert_eq!(*id == padding, !counts);
            }
        }
    }

    #[test]
    fn a_classifier_without_a_padding_token_gets_one_sequence() {
        let checkpoint = Checkpoint::open(fixtures::checkpoint("classifier")).unwrap();
        let mut config = checkpoint.config().clone();
        config.pad_token_id = None;
        config.max_position_embeddings = 9;
        let batch = sample_batch(&config).unwrap();
        assert_eq!(batch.ids().dim(), (1, 9));
        assert!(batch.mask().iter().all(|counts| *counts));
    }

    #[test]
    fn the_best_of_equal_values_is_the_first_and_no_number_is_never_best() {
        assert_eq!(best([1.0, 3.0, 3.0].into_iter()), 1);
        assert_eq!(best([f32::NAN, 1.0, f32::NAN].into_iter()), 1);
    }

    #[test]
    fn logits_of_the_cached_step_belong_to_the_most_probable_tokens() {
        let model = faulty_model("tiny", Task::CausalLm, |_, _| ());
        let expectation = Expectation::from_model(&model).unwrap();
        let (tokens, logits) = expectation.next.unwrap();
        assert_eq!(logits.shape(), [3, 1, 131]);
        for (token, continuation) in tokens.iter().zip(expectation.greedy.unwrap()) {
            assert_eq!(*token, continuation[0]);
        }
        assert!(expectation.tensors.contains_key(&OutputName::PresentKey(1)));
    }
}
