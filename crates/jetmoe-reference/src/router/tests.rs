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
    for (combined, token) in combined.iter().flatten().zip(tokens.to_vec2::<f32>().unwrap().iter().flatten())
    {
        assert!((combined - token).abs() <= token.abs() * f32::EPSILON, "{combined} {token}");
    }
}
