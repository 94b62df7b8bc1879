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
mod tests {
    use super::*;

    /// A router whose logits are its inputs.
    fn identity(experts: usize, experts_per_token: usize) -> Router {
        let weight = Tensor::eye(experts, candle_core::DType::F32, &Device::Cpu).unwrap();
        Router::new(Linear::new(weight, None), experts_per_token)
    }

    fn rows_by_expert(routing: &TopK) -> Vec<(usize, Vec<u32>)> {
        routing.groups.iter().map(|group| (group.expert, group.rows.to_vec1().unwrap())).collect()
    }

    #[test]
    fn the_largest_logits_are_selected_and_of_equal_ones_the_lower_expert() {
        assert_eq!(largest(&[0.5, 2.0, -1.0, 1.0], 2), [1, 3]);
        assert_eq!(largest(&[1.0, 1.0, 1.0, 1.0], 2), [0, 1]);
        assert_eq!(largest(&[-0.0, 0.0, -1.0, 0.0], 3), [0, 1, 3]);
    }

    #[test]
    fn nan_logits_still_select_experts() {
        let logits: Vec<f32> =
            (0..64).map(|index| if index % 3 == 0 { f32::NAN } else { index as f32 }).collect();
        assert_eq!(largest(&logits, 4).len(), 4);
    }

    #[test]
    fn rows_are_grouped_by_expert_and_an_expert_without_tokens_has_no_group() {
        let tokens = Tensor::new(&[[3.0_f32, 0.0, 1.0, 2.0], [0.0, 0.0, 9.0, 5.0]], &Device::Cpu).unwrap();
        let routing = identity(4, 2).forward(&tokens).unwrap();
        // token 0 selects experts 0 and 3 (assignments 0, 1), token 1 experts 2 and 3 (assignments 2, 3)
        assert_eq!(rows_by_expert(&routing), [(0, vec![0]), (2, vec![2]), (3, vec![1, 3])]);
        assert_eq!(routing.inverse_permutation.to_vec1::<u32>().unwrap(), [0, 2, 1, 3]);
    }

    #[test]
    fn gates_are_the_softmax_over_the_selected_logits_only() {
        let tokens = Tensor::new(&[[1.0_f32, 7.0, 2.0_f32.ln() + 7.0, 6.0]], &Device::Cpu).unwrap();
        let routing = identity(4, 2).forward(&tokens).unwrap();
        let gates = routing.gates.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((gates[0] - 2.0 / 3.0).abs() < f32::EPSILON * 4.0, "{gates:?}");
        assert!((gates[1] - 1.0 / 3.0).abs() < f32::EPSILON * 4.0, "{gates:?}");
    }

    #[test]
    fn combining_repeated_tokens_gives_the_tokens_back() {
        let tokens = Tensor::new(&[[3.0_f32, 0.0, 1.0], [0.0, 0.5, 9.0]], &Device::Cpu).unwrap();
        let routing = identity(3, 2).forward(&tokens).unwrap();
        let repeated = routing.repeat_tokens(&tokens).unwrap();
        assert_eq!(repeated.dims(), [4, 3]);
        let combined = routing.combine(&repeated).unwrap().to_vec2::<f32>().unwrap();
        for (combined, token) in
            combined.iter().flatten().zip(tokens.to_vec2::<f32>().unwrap().iter().flatten())
        {
            assert!((combined - token).abs() <= token.abs() * f32::EPSILON, "{combined} {token}");
        }
    }
}
