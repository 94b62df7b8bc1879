//! Log-probabilities of a prompt's tokens, from the logits of its chunks.

use jetmoe_rt::ndarray::ArrayView2;
use jetmoe_rt::{Error, LogProbabilities};

use super::PromptScores;

/// Collects the scores of a prompt, chunk by chunk.
#[derive(Debug)]
pub(super) struct PromptScorer {
    /// Most probable tokens to report for each token.
    count: usize,
    /// Of the tokens after the first, so far.
    scores: PromptScores,
}

impl PromptScorer {
    pub(super) fn new(count: usize) -> Self {
        PromptScorer { count, scores: PromptScores::default() }
    }

    /// Adds a chunk: `logits` `[tokens, vocab_size]` of the tokens from `first` on. The logits of a token are those of the next one.
    ///
    /// # Errors
    /// [`Error::Logits`] if they are NaN or have no finite maximum.
    pub(super) fn add(
        &mut self,
        prompt: &[u32],
        first: usize,
        logits: ArrayView2<'_, f32>,
        backend: impl Fn() -> String,
    ) -> Result<(), Error> {
        let next = prompt.iter().copied().enumerate().skip(first + 1);
        for (row, (index, token_id)) in logits.rows().into_iter().zip(next) {
            if index <= self.scores.tokens.len() {
                // read again after a step that was lost
                continue;
            }
            let found = LogProbabilities::of(row, token_id, self.count);
            let found = found.filter(|found| !found.chosen.is_nan()).ok_or_else(|| Error::Logits {
                backend: backend(),
                problem: format!(
                    "those before token {index} of the prompt contain NaN or have no finite maximum"
                ),
            })?;
            self.scores.tokens.push((found.chosen, found.best));
        }
        Ok(())
    }

    pub(super) fn into_scores(self) -> PromptScores {
        self.scores
    }
}

#[cfg(test)]
mod tests {
    use jetmoe_rt::log_sum_exp;
    use jetmoe_rt::ndarray::{Array2, Axis, array, s};

    use super::*;

    #[test]
    fn chunks_of_any_size_give_the_score_of_every_token_after_the_first() {
        let prompt = [2, 0, 1, 1, 2];
        let logits = Array2::from_shape_fn((5, 3), |(row, column)| ((row * 7 + column * 5) % 11) as f32);
        let score = |sizes: &[usize]| {
            let mut scorer = PromptScorer::new(2);
            let mut first = 0;
            for size in sizes {
                let chunk = logits.slice(s![first..first + size, ..]);
                scorer.add(&prompt, first, chunk, || unreachable!()).unwrap();
                first += size;
            }
            scorer.into_scores()
        };
        let whole = score(&[5]);
        assert_eq!(whole, score(&[1, 3, 1]));
        assert_eq!(whole.tokens.len(), 4);
        for (index, (chosen, best)) in whole.tokens.iter().enumerate() {
            let row = logits.index_axis(Axis(0), index);
            let expected = f64::from(row[prompt[index + 1] as usize]) - log_sum_exp(row);
            assert!((f64::from(*chosen) - expected).abs() < 1e-6);
            assert_eq!(best.len(), 2);
            assert!(best[0].log_probability >= best[1].log_probability);
        }
    }

    #[test]
    fn a_chunk_that_is_read_again_counts_once() {
        let mut scorer = PromptScorer::new(0);
        for _ in 0..2 {
            scorer.add(&[1, 0, 1], 0, array![[0.0, 1.0], [2.0, 0.0]].view(), || unreachable!()).unwrap();
        }
        assert_eq!(scorer.into_scores().tokens.len(), 2);
    }

    #[test]
    fn unusable_logits_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut scorer = PromptScorer::new(0);
            let error = scorer.add(&[1, 0], 0, array![[0.0, bad]].view(), || "fake".to_owned()).unwrap_err();
            assert!(matches!(error, Error::Logits { .. }), "{error}");
        }
    }
}
