use candle_core::{Result, Tensor};

use crate::observer::Watch;
use crate::router::Routes;

/// A linear layer that each expert owns a copy of.
#[derive(Debug)]
pub(crate) struct ExpertLinear {
    tensor: String,
    weight: Tensor, // [experts, out, in]
}

impl ExpertLinear {
    /// `tensor` is the weight's name in the checkpoint.
    pub(crate) fn new(tensor: &str, weight: Tensor) -> Self {
        ExpertLinear { tensor: tensor.to_owned(), weight }
    }

    /// Sends every row, `[rows, in]`, through its expert. An expert without rows is not touched.
    pub(crate) fn forward(&self, rows: &Tensor, routes: &Routes, watch: &mut Watch<'_>) -> Result<Tensor> {
        let mut outputs = Vec::with_capacity(routes.groups.len());
        for group in &routes.groups {
            let inputs = rows.index_select(&group.rows, 0)?; // [chosen, in]
            watch.show(&self.tensor, Some(group.expert), &inputs)?;
            let weight = self.weight.get(group.expert)?; // [out, in]
            outputs.push(inputs.matmul(&weight.t()?)?); // [chosen, out]
        }
        let grouped = Tensor::cat(&outputs, 0)?; // [rows, out], expert by expert
        grouped.index_select(&routes.place_in_groups, 0) // [rows, out], token by token
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::Linear;

    use super::*;
    use crate::router::Router;

    /// Routes over logits that the tokens themselves are.
    fn routes(tokens: &Tensor, experts_per_token: usize) -> Routes {
        let identity = Tensor::eye(tokens.dim(1).unwrap(), DType::F32, &Device::Cpu).unwrap();
        Router::new(Linear::new(identity, None), experts_per_token).forward(tokens).unwrap()
    }

    fn forward(experts: &ExpertLinear, tokens: &Tensor, routes: &Routes) -> Tensor {
        let rows = routes.spread(tokens).unwrap();
        experts.forward(&rows, routes, &mut Watch::nobody()).unwrap()
    }

    #[test]
    fn every_row_goes_through_its_own_expert() {
        let tokens = Tensor::new(&[[1.0_f32, 2.0], [4.0, 3.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        let routes = routes(&tokens, 1);
        // expert 0 adds the two inputs, expert 1 multiplies the first by 10
        let experts =
            ExpertLinear::new("", Tensor::new(&[[[1.0_f32, 1.0]], [[10.0, 0.0]]], &Device::Cpu).unwrap());
        let outputs = forward(&experts, &tokens, &routes);
        assert_eq!(outputs.to_vec2::<f32>().unwrap(), [[10.0], [7.0], [50.0]]);
    }

    #[test]
    fn an_expert_no_token_chose_is_not_computed() {
        let tokens = Tensor::new(&[[1.0_f32, 2.0, 0.0], [4.0, 3.0, 0.0]], &Device::Cpu).unwrap();
        let routes = routes(&tokens, 2);
        // any product with this weight would be NaN
        let unused = [[f32::NAN, f32::NAN, f32::NAN]];
        let weight = Tensor::new(&[[[1.0_f32, 0.0, 0.0]], [[0.0, 1.0, 0.0]], unused], &Device::Cpu).unwrap();
        let outputs = forward(&ExpertLinear::new("", weight), &tokens, &routes);
        assert_eq!(outputs.to_vec2::<f32>().unwrap(), [[2.0], [1.0], [4.0], [3.0]]);
    }
}
