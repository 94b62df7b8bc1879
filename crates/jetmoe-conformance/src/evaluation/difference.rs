//! Difference between the predictions of two language models on the same text.

use jetmoe_artifact::OutputName;
use jetmoe_rt::{StepOutput, log_sum_exp};
use ndarray::{ArrayView1, Ix3};
use serde::Serialize;

use crate::comparison::chosen_experts;
use crate::expectation::best;
use crate::{Error, Result};

/// Difference of a model from its baseline, usually the same model in float32. Quantization can lower the perplexity by
/// chance; these measures cannot improve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Backend and version of the baseline.
    pub baseline: String,
    /// The baseline's perplexity on the same tokens.
    pub baseline_perplexity: f64,
    /// Mean of Σ p ln(p / q) over the vocabulary, p the baseline's probabilities and q the model's, in nats per token.
    pub kl_divergence: f64,
    /// Share of tokens with the baseline's top-1 prediction.
    pub top1_agreement: f64,
    /// Agreement of the routers, per layer; empty unless both models return router logits.
    pub routers: Vec<RouterAgreement>,
}

/// Share of tokens for which the routers of a layer select exactly the baseline's experts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RouterAgreement {
    /// The layer, from 0.
    pub layer: usize,
    /// Of the mixture of attention heads.
    pub attention: f64,
    /// Of the mixture of MLP experts.
    pub mlp: f64,
}

/// Accumulates a [`Difference`].
#[derive(Debug, Default)]
pub(super) struct Differences {
    tokens: usize,
    kl_divergence: f64,
    loss: f64,
    same_best: usize,
    /// Per layer, tokens with the same experts: attention and MLP.
    same_experts: Vec<[usize; 2]>,
    routed: usize,
}

impl Differences {
    /// Adds a window: the outputs of both models for its tokens, and the successor of each token except the last.
    pub(super) fn add(
        &mut self,
        found: &StepOutput,
        baseline: &StepOutput,
        targets: &[u32],
        experts_per_token: usize,
    ) -> Result<()> {
        let (found_logits, baseline_logits) = (found.logits()?, baseline.logits()?); // [1, tokens, vocab]
        if found_logits.dim() != baseline_logits.dim() {
            return Err(Error::Shape {
                tensor: OutputName::Logits.to_string(),
                expected: baseline_logits.shape().to_vec(),
                found: found_logits.shape().to_vec(),
            });
        }
        for (place, target) in targets.iter().enumerate() {
            let found = found_logits.slice(ndarray::s![0, place, ..]);
            let baseline = baseline_logits.slice(ndarray::s![0, place, ..]);
            let (p, q) = (log_probabilities(baseline), log_probabilities(found));
            self.kl_divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            self.loss -= p[*target as usize];
            self.same_best += usize::from(best(found.iter().copied()) == best(baseline.iter().copied()));
            self.tokens += 1;
        }
        self.add_routes(found, baseline, experts_per_token);
        Ok(())
    }

    fn add_routes(&mut self, found: &StepOutput, baseline: &StepOutput, experts_per_token: usize) {
        let mut layer = 0;
        loop {
            let names = [OutputName::AttentionRouterLogits(layer), OutputName::MlpRouterLogits(layer)];
            let same = names.map(|name| {
                let (found, baseline) = (found.tensors().get(&name)?, baseline.tensors().get(&name)?);
                let found = found.view().into_dimensionality::<Ix3>().ok()?;
                let baseline = baseline.view().into_dimensionality::<Ix3>().ok()?;
                let rows = found.rows().into_iter().zip(baseline.rows());
                let same = rows.filter(|(found, baseline)| {
                    chosen_experts(*found, experts_per_token) == chosen_experts(*baseline, experts_per_token)
                });
                Some((same.count(), found.shape()[1]))
            });
            let [Some((attention, tokens)), Some((mlp, _))] = same else { return };
            if layer == 0 {
                self.routed += tokens;
            }
            if self.same_experts.len() <= layer {
                self.same_experts.push([0, 0]);
            }
            self.same_experts[layer][0] += attention;
            self.same_experts[layer][1] += mlp;
            layer += 1;
        }
    }

    pub(super) fn finish(self, baseline: String) -> Difference {
        let tokens = self.tokens as f64;
        let share = |same: usize| same as f64 / self.routed as f64;
        let routers = self.same_experts.iter().enumerate().map(|(layer, [attention, mlp])| RouterAgreement {
            layer,
            attention: share(*attention),
            mlp: share(*mlp),
        });
        Difference {
            baseline,
            baseline_perplexity: (self.loss / tokens).exp(),
            kl_divergence: self.kl_divergence / tokens,
            top1_agreement: self.same_best as f64 / tokens,
            routers: routers.collect(),
        }
    }
}

/// scores − ln Σ exp(scores) in float64.
fn log_probabilities(scores: ArrayView1<'_, f32>) -> Vec<f64> {
    let shift = log_sum_exp(scores);
    scores.iter().map(|score| f64::from(*score) - shift).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn probabilities_add_up_to_one_however_large_the_scores() {
        for shift in [0.0, 1e4, -1e4] {
            let logs = log_probabilities(array![1.0_f32 + shift, 2.0 + shift, -3.0 + shift].view());
            let sum: f64 = logs.iter().map(|log| log.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{shift}: {sum}");
        }
    }
}
