//! Log-probabilities of generated tokens.

use std::cmp::Ordering;

use ndarray::ArrayView1;

/// How probable a generated token was, and which tokens were the most probable ones in its place.
///
/// The distribution is the model's own: the softmax of the logits *before* repetition penalty, temperature, `top_k`, `top_p`
/// and `min_p`. So it does not depend on the options, no token is missing from it, and the sum over a continuation gives its
/// perplexity. It is the distribution of `output_logits` in transformers (`output_scores` is the one after the options), of
/// `raw_logprobs` in vLLM and of `n_probs` in llama.cpp's server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogProbabilities {
    /// Natural logarithm of the generated token's probability, at most 0.
    pub chosen: f32,
    /// The most probable tokens, as many as [`GenerationOptions::log_probabilities`](crate::GenerationOptions) says; the most
    /// probable first, the lower id first of equal ones. The generated token is among them only if it is one of them.
    pub best: Vec<TokenLogProbability>,
}

/// A token and the logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TokenLogProbability {
    /// Its id.
    pub token_id: u32,
    /// Natural logarithm of its probability, at most 0; negative infinity for a logit of negative infinity.
    pub log_probability: f32,
}

impl LogProbabilities {
    /// Of a token, by logits `[vocab_size]` without NaN and with a finite maximum, with the `count` most probable ones. `None` if
    /// the logits have no such token.
    pub fn of(logits: ArrayView1<'_, f32>, chosen: u32, count: usize) -> Option<Self> {
        let normalizer = log_sum_exp(logits);
        Some(LogProbabilities {
            chosen: log_probability(*logits.get(chosen as usize)?, normalizer) as f32,
            best: best(logits, count, normalizer),
        })
    }
}

/// The `count` most probable tokens.
pub(super) fn best(logits: ArrayView1<'_, f32>, count: usize, normalizer: f64) -> Vec<TokenLogProbability> {
    let tokens = most_probable(logits, count).into_iter();
    let tokens = tokens.map(|(token_id, logit)| TokenLogProbability {
        token_id,
        log_probability: log_probability(logit, normalizer) as f32,
    });
    tokens.collect()
}

/// Natural logarithm of a token's probability: at most 0, or NaN if a logit is. `normalizer` is the [`log_sum_exp`] of all
/// logits.
pub(super) fn log_probability(logit: f32, normalizer: f64) -> f64 {
    let value = f64::from(logit) - normalizer;
    // not `min`, which drops NaN
    if value > 0.0 { 0.0 } else { value }
}

/// ln Σ exp(logits), for logits without NaN and with a finite maximum: what a logit exceeds its log-probability by. In float64,
/// because tens of thousands of small terms are added.
pub fn log_sum_exp(logits: ArrayView1<'_, f32>) -> f64 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - highest).exp()).sum();
    highest + sum.ln()
}

/// The ids and logits of the `count` highest logits, in order.
fn most_probable(logits: ArrayView1<'_, f32>, count: usize) -> Vec<(u32, f32)> {
    let order = |left: &(u32, f32), right: &(u32, f32)| -> Ordering {
        right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
    };
    if count == 0 {
        return Vec::new();
    }
    let mut tokens: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count - 1, order);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(order);
    tokens
}

#[cfg(test)]
mod tests;
