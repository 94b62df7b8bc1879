use candle_core::{Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{Linear, Module};

/// Chooses for every token the experts with the largest logits, and weighs them by the softmax over *their* logits.
#[derive(Debug)]
pub(crate) struct Router {
    layer: Linear, // hidden → experts
    experts_per_token: usize,
}

/// Where every token goes. A *row* is a pair (token, slot), numbered token · slots + slot; slot s of a token belongs to
/// its s-th best expert.
#[derive(Debug)]
pub(crate) struct Routes {
    /// `[tokens, experts]`.
    pub(crate) logits: Tensor,
    gates: Tensor, // [tokens, slots, 1]
    /// The experts that some token chose, by number; the others do not appear.
    pub(crate) groups: Vec<ExpertRows>,
    /// For every row its place in the concatenation of all groups, `[rows]`.
    pub(crate) place_in_groups: Tensor,
}

/// The rows of one expert.
#[derive(Debug)]
pub(crate) struct ExpertRows {
    pub(crate) expert: usize,
    pub(crate) rows: Tensor, // [chosen]
}

impl Router {
    pub(crate) fn new(layer: Linear, experts_per_token: usize) -> Self {
        Router { layer, experts_per_token }
    }

    /// Routes `tokens`, `[tokens, hidden]`.
    pub(crate) fn forward(&self, tokens: &Tensor) -> Result<Routes> {
        let logits = self.layer.forward(tokens)?; // [tokens, experts]
        let (num_tokens, num_experts) = logits.dims2()?;
        let slots = self.experts_per_token;

        let chosen: Vec<u32> =
            logits.to_vec2::<f32>()?.iter().flat_map(|logits| largest(logits, slots)).collect();
        let mut rows_of_expert = vec![Vec::new(); num_experts];
        for (row, expert) in chosen.iter().enumerate() {
            rows_of_expert[*expert as usize].push(row as u32);
        }
        let mut place_in_groups = vec![0_u32; chosen.len()];
        for (place, row) in rows_of_expert.iter().flatten().enumerate() {
            place_in_groups[*row as usize] = place as u32;
        }

        let chosen = Tensor::from_vec(chosen, (num_tokens, slots), &Device::Cpu)?; // [tokens, slots]
        let chosen_logits = logits.gather(&chosen, 1)?; // [tokens, slots]
        let gates = softmax_last_dim(&chosen_logits)?.unsqueeze(2)?; // [tokens, slots, 1]
        let groups = rows_of_expert
            .into_iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(expert, rows)| Ok(ExpertRows { expert, rows: Tensor::new(rows, &Device::Cpu)? }))
            .collect::<Result<_>>()?;
        let place_in_groups = Tensor::new(place_in_groups, &Device::Cpu)?; // [rows]
        Ok(Routes { logits, gates, groups, place_in_groups })
    }
}

impl Routes {
    /// Every token once for each of its slots.
    pub(crate) fn spread(&self, tokens: &Tensor) -> Result<Tensor> {
        let (num_tokens, slots, _) = self.gates.dims3()?;
        let width = tokens.dim(1)?;
        tokens
            .unsqueeze(1)? // [tokens, 1, width]
            .broadcast_as((num_tokens, slots, width))? // [tokens, slots, width]
            .reshape((num_tokens * slots, width)) // [rows, width]
    }

    /// The sum over every token's slots, weighed by the gates.
    pub(crate) fn combine(&self, rows: &Tensor) -> Result<Tensor> {
        let (num_tokens, slots, _) = self.gates.dims3()?;
        let slotted = rows.reshape((num_tokens, slots, ()))?; // [tokens, slots, width]
        slotted.broadcast_mul(&self.gates)?.sum(1) // [tokens, width]
    }
}

/// Indices of the `count` largest logits, the largest first; of equal ones, the lower index first.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..logits.len() as u32).collect();
    // adding 0 makes −0 equal to 0; a total order because a damaged checkpoint may give NaN
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

    fn rows_by_expert(routes: &Routes) -> Vec<(usize, Vec<u32>)> {
        routes.groups.iter().map(|group| (group.expert, group.rows.to_vec1().unwrap())).collect()
    }

    #[test]
    fn the_largest_logits_are_chosen_and_of_equal_ones_the_lower_expert() {
        assert_eq!(largest(&[0.5, 2.0, -1.0, 1.0], 2), [1, 3]);
        assert_eq!(largest(&[1.0, 1.0, 1.0, 1.0], 2), [0, 1]);
        assert_eq!(largest(&[-0.0, 0.0, -1.0, 0.0], 3), [0, 1, 3]);
    }

    #[test]
    fn logits_that_are_no_numbers_still_choose_experts() {
        let logits: Vec<f32> =
            (0..64).map(|index| if index % 3 == 0 { f32::NAN } else { index as f32 }).collect();
        assert_eq!(largest(&logits, 4).len(), 4);
    }

    #[test]
    fn rows_are_grouped_by_expert_and_an_expert_without_tokens_has_no_group() {
        let tokens = Tensor::new(&[[3.0_f32, 0.0, 1.0, 2.0], [0.0, 0.0, 9.0, 5.0]], &Device::Cpu).unwrap();
        let routes = identity(4, 2).forward(&tokens).unwrap();
        // token 0 chose experts 0 and 3 (rows 0, 1), token 1 experts 2 and 3 (rows 2, 3)
        assert_eq!(rows_by_expert(&routes), [(0, vec![0]), (2, vec![2]), (3, vec![1, 3])]);
        assert_eq!(routes.place_in_groups.to_vec1::<u32>().unwrap(), [0, 2, 1, 3]);
    }

    #[test]
    fn gates_are_the_softmax_over_the_chosen_logits_alone() {
        let tokens = Tensor::new(&[[1.0_f32, 7.0, 2.0_f32.ln() + 7.0, 6.0]], &Device::Cpu).unwrap();
        let routes = identity(4, 2).forward(&tokens).unwrap();
        let gates = routes.gates.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((gates[0] - 2.0 / 3.0).abs() < f32::EPSILON * 4.0, "{gates:?}");
        assert!((gates[1] - 1.0 / 3.0).abs() < f32::EPSILON * 4.0, "{gates:?}");
    }

    #[test]
    fn combining_what_was_spread_gives_the_tokens_back() {
        let tokens = Tensor::new(&[[3.0_f32, 0.0, 1.0], [0.0, 0.5, 9.0]], &Device::Cpu).unwrap();
        let routes = identity(3, 2).forward(&tokens).unwrap();
        let spread = routes.spread(&tokens).unwrap();
        assert_eq!(spread.dims(), [4, 3]);
        let combined = routes.combine(&spread).unwrap().to_vec2::<f32>().unwrap();
        for (combined, token) in
            combined.iter().flatten().zip(tokens.to_vec2::<f32>().unwrap().iter().flatten())
        {
            assert!((combined - token).abs() <= token.abs() * f32::EPSILON, "{combined} {token}");
        }
    }
}
