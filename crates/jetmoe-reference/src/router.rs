//! Router of a mixture: selects the experts of every token. Mirrors `JetMoeTopKGating` in transformers'
//! `modeling_jetmoe.py`: logits, top-k, softmax over the selected logits only.

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{Linear, Module};

/// Selects for every token the experts with the largest logits, and weights them by the softmax over *their* logits.
#[derive(Debug)]
pub(crate) struct Router {
    layer: Linear, // hidden → experts
    experts_per_token: usize,
}

/// The selected experts of every token. An *assignment* is a pair (token, s), numbered token · k + s: the token's s-th
/// best expert.
#[derive(Debug)]
pub(crate) struct TopK {
    /// `[tokens, experts]`.
    pub(crate) logits: Tensor,
    gates: Tensor, // [tokens, k, 1]
    /// Assignments grouped by expert, in order of experts; an expert without tokens has no group.
    pub(crate) groups: Vec<ExpertGroup>,
    /// Position of every assignment in the concatenated groups, `[assignments]`.
    pub(crate) inverse_permutation: Tensor,
}

/// The assignments of one expert.
#[derive(Debug)]
pub(crate) struct ExpertGroup {
    pub(crate) expert: usize,
    pub(crate) rows: Tensor, // [group]
}

impl Router {
    pub(crate) fn new(layer: Linear, experts_per_token: usize) -> Self {
        Router { layer, experts_per_token }
    }

    /// Routes `tokens`, `[tokens, hidden]`.
    pub(crate) fn forward(&self, tokens: &Tensor) -> Result<TopK> {
        let logits = self.layer.forward(tokens)?; // [tokens, experts]
        let (num_tokens, num_experts) = logits.dims2()?;
        let k = self.experts_per_token;

        let selected: Vec<u32> =
            logits.to_vec2::<f32>()?.iter().flat_map(|logits| largest(logits, k)).collect();
        let mut rows_of_expert = vec![Vec::new(); num_experts];
        for (row, expert) in selected.iter().enumerate() {
            rows_of_expert[*expert as usize].push(row as u32);
        }
        let mut inverse_permutation = vec![0_u32; selected.len()];
        for (position, row) in rows_of_expert.iter().flatten().enumerate() {
            inverse_permutation[*row as usize] = position as u32;
        }

        let selected = Tensor::from_vec(selected, (num_tokens, k), &Device::Cpu)?; // [tokens, k]
        let selected_logits = logits.gather(&selected, 1)?; // [tokens, k]
        let gates = softmax_last_dim(&selected_logits)?.unsqueeze(2)?; // [tokens, k, 1]
        let groups = rows_of_expert
            .into_iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(expert, rows)| Ok(ExpertGroup { expert, rows: Tensor::new(rows, &Device::Cpu)? }))
            .collect::<Result<_>>()?;
        let inverse_permutation = Tensor::new(inverse_permutation, &Device::Cpu)?; // [assignments]
        Ok(TopK { logits, gates, groups, inverse_permutation })
    }
}

impl TopK {
    /// Repeats every token for each of its experts: `[tokens, width]` to `[assignments, width]`.
    pub(crate) fn repeat_tokens(&self, tokens: &Tensor) -> Result<Tensor> {
        let (num_tokens, k, _) = self.gates.dims3()?;
        let width = tokens.dim(1)?;
        tokens
            .unsqueeze(1)? // [tokens, 1, width]
            .broadcast_as((num_tokens, k, width))? // [tokens, k, width]
            .reshape((num_tokens * k, width)) // [assignments, width]
    }

    /// Sum over every token's experts, weighted by the gates: `[assignments, width]` to `[tokens, width]`.
    pub(crate) fn combine(&self, outputs: &Tensor) -> Result<Tensor> {
        let (num_tokens, k, _) = self.gates.dims3()?;
        let per_token = outputs.reshape((num_tokens, k, ()))?; // [tokens, k, width]
        per_token.broadcast_mul(&self.gates)?.sum(1) // [tokens, width]
    }
}

/// Indices of the `count` largest logits in descending order; ties are broken by the lower index.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..logits.len() as u32).collect();
    // adding 0 makes −0 equal to 0; a total order, because a damaged checkpoint may give NaN
    let key = |index: &u32| logits[*index as usize] + 0.0;
    indices.sort_by(|left, right| key(right).total_cmp(&key(left)));
    indices.truncate(count);
    indices
}

#[cfg(test)]
mod tests;
