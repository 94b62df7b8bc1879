//! From the hidden states of tokens to the vector of a text.

use jetmoe_rt::ndarray::ArrayView1;
use serde::Deserialize;
use utoipa::ToSchema;

/// How the hidden states of the tokens become the vector of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// Their mean, special tokens included.
    #[default]
    Mean,
    /// That of the last token, which has seen all others.
    Last,
    /// No pooling: a vector for each token.
    None,
}

/// Collects the hidden states of one text, token by token. Sums are in float64, so the result does not depend on how the tokens
/// are divided into steps.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pooling: Pooling,
    sum: Vec<f64>,
    rows: Vec<Vec<f32>>,
    tokens: usize,
}

impl Pool {
    pub(crate) fn new(pooling: Pooling) -> Self {
        Pool { pooling, sum: Vec::new(), rows: Vec::new(), tokens: 0 }
    }

    /// Adds the hidden state of the next token, `[hidden_size]`.
    pub(crate) fn push(&mut self, hidden: ArrayView1<'_, f32>) {
        self.tokens += 1;
        match self.pooling {
            Pooling::Mean => {
                self.sum.resize(hidden.len(), 0.0);
                for (sum, value) in self.sum.iter_mut().zip(hidden) {
                    *sum += f64::from(*value);
                }
            }
            Pooling::Last => self.rows = vec![hidden.to_vec()],
            Pooling::None => self.rows.push(hidden.to_vec()),
        }
    }

    /// The vector, or a vector for each token with [`Pooling::None`].
    pub(crate) fn finish(self, normalization: Normalization) -> Vec<Vec<f32>> {
        let rows = match self.pooling {
            Pooling::Mean => {
                let count = self.tokens.max(1) as f64;
                vec![self.sum.into_iter().map(|sum| (sum / count) as f32).collect()]
            }
            Pooling::Last | Pooling::None => self.rows,
        };
        match normalization {
            Normalization::Euclidean => rows.into_iter().map(normalized).collect(),
            Normalization::None => rows,
        }
    }
}

/// What is done with a vector after pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Normalization {
    /// Divided by its Euclidean norm.
    Euclidean,
    None,
}

/// The vector divided by its Euclidean norm, in float64 and rounded to float32. A zero vector stays.
fn normalized(vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    match norm > 0.0 {
        true => vector.into_iter().map(|value| (f64::from(value) / norm) as f32).collect(),
        false => vector,
    }
}

#[cfg(test)]
mod tests {
    use jetmoe_rt::ndarray::arr1;

    use super::{Normalization, Pool, Pooling};

    fn pooled(pooling: Pooling, normalization: Normalization) -> Vec<Vec<f32>> {
        let mut pool = Pool::new(pooling);
        for row in [[1.0, 0.0], [2.0, 0.0], [6.0, 12.0]] {
            pool.push(arr1(&row).view());
        }
        pool.finish(normalization)
    }

    #[test]
    fn pooling_is_over_tokens() {
        assert_eq!(pooled(Pooling::Mean, Normalization::None), [[3.0, 4.0]]);
        assert_eq!(pooled(Pooling::Last, Normalization::None), [[6.0, 12.0]]);
        assert_eq!(pooled(Pooling::None, Normalization::None), [[1.0, 0.0], [2.0, 0.0], [6.0, 12.0]]);
    }

    #[test]
    fn a_vector_is_normalized_after_pooling() {
        assert_eq!(pooled(Pooling::Mean, Normalization::Euclidean), [[0.6, 0.8]]);
        assert_eq!(pooled(Pooling::None, Normalization::Euclidean)[1], [1.0, 0.0]);
        let mut zero = Pool::new(Pooling::Last);
        zero.push(arr1(&[0.0, 0.0]).view());
        assert_eq!(zero.finish(Normalization::Euclidean), [[0.0, 0.0]]);
    }
}
