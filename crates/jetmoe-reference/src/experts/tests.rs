use candle_core::{DType, Device};
use candle_nn::Linear;

use super::*;
use crate::router::Router;

/// Routing with the tokens themselves as router logits.
fn route(tokens: &Tensor, experts_per_token: usize) -> TopK {
    let identity = Tensor::eye(tokens.dim(1).unwrap(), DType::F32, &Device::Cpu).unwrap();
    Router::new(Linear::new(identity, None), experts_per_token).forward(tokens).unwrap()
}

fn forward(experts: &ExpertLinear, tokens: &Tensor, routing: &TopK) -> Tensor {
    let inputs = routing.repeat_tokens(tokens).unwrap();
    experts.forward(&inputs, routing, &mut ActivationHook::none()).unwrap()
}

#[test]
fn every_row_goes_through_its_own_expert() {
    let tokens = Tensor::new(&[[1.0_f32, 2.0], [4.0, 3.0], [5.0, 6.0]], &Device::Cpu).unwrap();
    let routing = route(&tokens, 1);
    // expert 0 adds the two inputs, expert 1 multiplies the first by 10
    let experts =
        ExpertLinear::new("", Tensor::new(&[[[1.0_f32, 1.0]], [[10.0, 0.0]]], &Device::Cpu).unwrap());
    let outputs = forward(&experts, &tokens, &routing);
    assert_eq!(outputs.to_vec2::<f32>().unwrap(), [[10.0], [7.0], [50.0]]);
}

#[test]
fn an_expert_without_tokens_is_not_computed() {
    let tokens = Tensor::new(&[[1.0_f32, 2.0, 0.0], [4.0, 3.0, 0.0]], &Device::Cpu).unwrap();
    let routing = route(&tokens, 2);
    // any product with this weight would be NaN
    let unused = [[f32::NAN, f32::NAN, f32::NAN]];
    let weight = Tensor::new(&[[[1.0_f32, 0.0, 0.0]], [[0.0, 1.0, 0.0]], unused], &Device::Cpu).unwrap();
    let outputs = forward(&ExpertLinear::new("", weight), &tokens, &routing);
    assert_eq!(outputs.to_vec2::<f32>().unwrap(), [[2.0], [1.0], [4.0], [3.0]]);
}
