use jetmoe_testing::fixtures;
use ndarray::{Array2, ArrayD, Axis, Slice, array};

use super::*;
use crate::faulty::{add, faulty_model};
use crate::{Expectation, read_golden};

const TINY: &str = "tiny";

/// Sequences of the golden batch whose first position is padding.
const PADDED: usize = 1;

fn golden() -> Expectation {
    let checkpoint = jetmoe_checkpoint::Checkpoint::open(fixtures::checkpoint(TINY)).unwrap();
    read_golden(&fixtures::checkpoint(TINY).join("golden.safetensors"), checkpoint.config()).unwrap()
}

/// Compares the reference with a fault in its outputs with the golden values.
fn compare_faulty(fault: impl Fn(usize, &mut TensorMap) + Send + Sync + 'static) -> Result<Comparison> {
    let model = faulty_model(TINY, Task::CausalLm, fault);
    compare(BackendName::REFERENCE, &model, &golden(), Tolerance::Float32)
}

/// Adds to one element of an output of the golden batch, but not of the steps after it.
fn add_to_prompt<const N: usize>(
    name: OutputName,
    index: [usize; N],
    difference: f32,
) -> impl Fn(usize, &mut TensorMap) + Send + Sync {
    move |cached, tensors| {
        if cached == 0 {
            add(tensors, name, &index, difference);
        }
    }
}

fn tensor<'a>(comparison: &'a Comparison, name: &str) -> &'a TensorComparison {
    comparison.tensors.iter().find(|tensor| tensor.name == name).unwrap()
}

fn failed(comparison: &Comparison) -> Vec<&str> {
    let failed = comparison.tensors.iter().filter(|tensor| !tensor.passed);
    failed.map(|tensor| tensor.name.as_str()).collect()
}

#[test]
fn a_model_that_computes_the_golden_values_passes() {
    let comparison = compare_faulty(|_, _| ()).unwrap();
    assert!(comparison.passed, "{comparison:#?}");
    assert_eq!((comparison.backend.as_str(), comparison.runtime.as_str()), ("reference", "faulty 1.0"));
    assert_eq!(comparison.top1_agreement, Some(1.0));
    assert_eq!(comparison.router_agreement, Some(1.0));
    assert_eq!(comparison.not_compared, [""; 0]);
    // three sequences of 14 tokens, of which two begin with 4 that are padding
    assert_eq!(comparison.tokens, 34);
    let greedy = comparison.greedy.unwrap();
    assert!(greedy.identical && greedy.tokens > 24, "{greedy:?}");
}

#[test]
fn an_error_in_any_kind_of_tensor_is_found_there_and_names_the_layer() {
    let kinds = [
        (OutputName::Logits, "logits"),
        (OutputName::LastHiddenState, "last_hidden_state"),
        (OutputName::HiddenState(0), "hidden_states.*"),
        (OutputName::HiddenState(2), "hidden_states.*"),
        (OutputName::AttentionRouterLogits(1), "attn_router_logits.*"),
        (OutputName::MlpRouterLogits(0), "mlp_router_logits.*"),
        (OutputName::PresentKey(1), "present.*.key"),
        (OutputName::PresentValue(0), "present.*.value"),
    ];
    for (name, kind) in kinds {
        let comparison = compare_faulty(add_to_prompt(name, [0, 1], 1e-2)).unwrap();
        assert!(!comparison.passed);
        assert_eq!(failed(&comparison), [kind]);
        assert_eq!(tensor(&comparison, kind).worst, name.to_string());
        let error = tensor(&comparison, kind).max_absolute_error;
        assert!((error - 1e-2).abs() <= Tolerance::Float32.logits_absolute(), "{error}");
    }
}

#[test]
fn a_value_that_is_no_number_is_an_infinite_error() {
    for wrong in [f32::NAN, f32::INFINITY] {
        let fault = add_to_prompt(OutputName::HiddenState(1), [2, 13, 5], wrong);
        let comparison = compare_faulty(fault).unwrap();
        assert!(!comparison.passed);
        assert_eq!(failed(&comparison), ["hidden_states.*"]);
        let hidden = tensor(&comparison, "hidden_states.*");
        assert_eq!((hidden.max_absolute_error, hidden.max_relative_error), (f64::INFINITY, f64::INFINITY));
        assert_eq!(hidden.worst, "hidden_states.1");
    }
}

#[test]
fn padding_is_not_compared() {
    let comparison = compare_faulty(|_, tensors| {
        for tensor in tensors.values_mut().filter(|tensor| tensor.ndim() == 3 && tensor.shape()[1] > 1) {
            tensor.index_axis_mut(Axis(0), PADDED).index_axis_mut(Axis(0), 0).fill(f32::NAN);
        }
        for layer in 0..2 {
            for name in [OutputName::PresentKey(layer), OutputName::PresentValue(layer)] {
                if let Some(tensor) = tensors.get_mut(&name) {
                    tensor.index_axis_mut(Axis(0), PADDED).index_axis_mut(Axis(1), 0).fill(f32::NAN);
                }
            }
        }
    });
    assert!(comparison.unwrap().passed);
}

#[test]
fn an_error_within_the_tolerance_is_none() {
    for (share, passes) in [(0.5, true), (1.5, false)] {
        let difference = (share * Tolerance::Float32.logits_absolute()) as f32;
        let comparison = compare_faulty(add_to_prompt(OutputName::Logits, [0, 3, 9], difference)).unwrap();
        assert_eq!(comparison.passed, passes, "{comparison:#?}");
    }
}

#[test]
fn errors_are_relative_to_the_largest_value_of_their_own_tensor() {
    let golden = golden();
    let name = OutputName::HiddenState(0);
    let largest = |name| golden.tensors[&name].iter().fold(0.0_f32, |scale, value| scale.max(value.abs()));
    let scale = largest(name);
    assert!(scale * 2.0 < largest(OutputName::HiddenState(2)), "the embedding is the smallest");
    for (share, passes) in [(0.5, true), (1.5, false)] {
        let difference = (share * 2e-5) as f32 * scale;
        let comparison = compare_faulty(add_to_prompt(name, [0, 3, 9], difference)).unwrap();
        assert_eq!(comparison.passed, passes, "{comparison:#?}");
    }
}

#[test]
fn an_output_that_the_model_lacks_is_not_compared_and_named() {
    let comparison = compare_faulty(|_, tensors| {
        tensors.retain(|name, _| !matches!(name, OutputName::LastHiddenState | OutputName::HiddenState(_)));
    });
    let comparison = comparison.unwrap();
    assert!(comparison.passed);
    assert_eq!(comparison.not_compared, ["hidden_states.*", "last_hidden_state"]);
    assert!(comparison.tensors.iter().all(|tensor| !tensor.name.contains("hidden")));
}

#[test]
fn a_tensor_of_another_shape_is_an_error_that_names_both() {
    let cut = |_, tensors: &mut TensorMap| {
        if let Some(tensor) = tensors.get_mut(&OutputName::MlpRouterLogits(1)) {
            *tensor = tensor.slice_axis(Axis(2), Slice::from(..5)).to_owned();
        }
    };
    let error = compare_faulty(cut).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mlp_router_logits.1: the model gives shape [3, 14, 5], expected [3, 14, 8]\n  \
         does the golden file belong to this model?"
    );
}

#[test]
fn an_error_that_only_the_cached_step_has_is_found() {
    let comparison = compare_faulty(|cached, tensors| {
        if cached > 0 {
            add(tensors, OutputName::Logits, &[2, 0, 17], 1e-3);
        }
    });
    let comparison = comparison.unwrap();
    assert!(!comparison.passed);
    assert_eq!(failed(&comparison), ["next.logits"]);
    assert!(comparison.greedy.unwrap().identical);
}

#[test]
fn another_greedy_token_is_named_with_its_place() {
    // the golden batch has 14 tokens: the first new token comes from the prompt, the sixth after 18 cached ones
    let comparison = compare_faulty(|cached, tensors| {
        if cached == 18 {
            add(tensors, OutputName::Logits, &[1, 0, 77], 100.0);
        }
    });
    let comparison = comparison.unwrap();
    assert!(!comparison.passed);
    assert_eq!(failed(&comparison), [""; 0]);
    let expected = golden().greedy.unwrap()[1][5];
    let greedy = comparison.greedy.unwrap();
    assert!(!greedy.identical);
    assert_eq!(greedy.first_difference, Some(format!("sequence 1, new token 5: 77 instead of {expected}")));
}

#[test]
fn a_continuation_that_ends_too_early_or_too_late_differs() {
    let end = 2;
    let comparison = compare_faulty(move |cached, tensors| {
        if cached == 15 {
            add(tensors, OutputName::Logits, &[0, 0, end], 100.0);
        }
    });
    let difference = comparison.unwrap().greedy.unwrap().first_difference.unwrap();
    assert!(difference.starts_with("sequence 0, new token 2: 2 instead of "), "{difference}");

    let expected = golden().greedy.unwrap();
    let stopped = expected.iter().position(|row| row.len() < 24 && row.ends_with(&[end as u32]));
    let (row, place) = stopped.map(|row| (row, expected[row].len() - 1)).unwrap();
    let comparison = compare_faulty(move |_, tensors| {
        if let Some(logits) = tensors.get_mut(&OutputName::Logits) {
            logits.index_axis_mut(Axis(2), end).fill(-100.0);
        }
    });
    let difference = comparison.unwrap().greedy.unwrap().first_difference.unwrap();
    let beginning = format!("sequence {row}, new token {place}: ");
    assert!(difference.starts_with(&beginning) && difference.ends_with(" instead of 2"), "{difference}");
}

#[test]
fn the_share_of_tokens_with_another_best_token_or_route_is_measured() {
    let comparison = compare_faulty(|cached, tensors| {
        if cached == 0 {
            // one of 34 tokens, and one that is padding
            add(tensors, OutputName::Logits, &[0, 2, 5], 100.0);
            add(tensors, OutputName::Logits, &[PADDED, 0, 5], 100.0);
            if let Some(logits) = tensors.get_mut(&OutputName::AttentionRouterLogits(0)) {
                for token in [0, 1] {
                    let mut logits = logits.index_axis_mut(Axis(0), 0);
                    let mut logits = logits.index_axis_mut(Axis(0), token);
                    let negated = logits.mapv(|logit| -logit);
                    logits.assign(&negated);
                }
            }
        }
    });
    let comparison = comparison.unwrap();
    assert_eq!(comparison.top1_agreement, Some(33.0 / 34.0));
    // two layers with two routers each
    assert_eq!(comparison.router_agreement, Some(134.0 / 136.0));
}

#[test]
fn a_classifier_is_compared_by_sequence() {
    let fixture = "classifier";
    let checkpoint = jetmoe_checkpoint::Checkpoint::open(fixtures::checkpoint(fixture)).unwrap();
    let golden =
        read_golden(&fixtures::checkpoint(fixture).join("golden.safetensors"), checkpoint.config()).unwrap();
    let class =
        |row: usize| best(golden.tensors[&OutputName::Logits].index_axis(Axis(0), row).iter().copied());
    let other = (0..3).find(|label| *label != class(2)).unwrap() as usize;
    let model = faulty_model(fixture, Task::SequenceClassification, move |_, tensors| {
        add(tensors, OutputName::Logits, &[2, other], 100.0);
    });
    let comparison = compare(BackendName::REFERENCE, &model, &golden, Tolerance::Float32).unwrap();
    assert!(!comparison.passed);
    assert_eq!(failed(&comparison), ["logits"]);
    assert_eq!(comparison.top1_agreement, Some(2.0 / 3.0));
    assert_eq!(comparison.greedy, None);
}

#[test]
fn a_backbone_has_no_logits_to_compare() {
    let model = faulty_model(TINY, Task::Backbone, |_, _| ());
    let comparison = compare(BackendName::REFERENCE, &model, &golden(), Tolerance::Float32).unwrap();
    assert!(comparison.passed);
    assert_eq!(comparison.not_compared, ["greedy continuation", "logits", "next.logits"]);
    assert_eq!((comparison.greedy, comparison.top1_agreement), (None, None));
}

#[test]
fn a_tensor_of_zeros_tolerates_no_error() {
    let mut measured = Measurements { tolerance: Tolerance::Float32, kinds: BTreeMap::new() };
    let zeros = ArrayD::zeros(vec![1, 2, 3]);
    let mask = Array2::from_elem((1, 2), true);
    let hidden = |index| Compared::Output(OutputName::HiddenState(index));
    measured.add(hidden(0), &zeros, &zeros, &mask).unwrap();
    let mut other = zeros.clone();
    other[[0, 0, 0]] = f32::MIN_POSITIVE;
    measured.add(hidden(1), &other, &zeros, &mask).unwrap();
    let [compared] = measured.finish().try_into().unwrap();
    assert!(!compared.passed);
    assert_eq!((compared.worst.as_str(), compared.max_relative_error), ("hidden_states.1", f64::INFINITY));
}

#[test]
fn experts_are_chosen_by_their_logits_whatever_their_order() {
    let logits = array![0.5, 2.0, -1.0, 1.0];
    assert_eq!(chosen_experts(logits.view(), 2), [1, 3]);
    assert_eq!(chosen_experts(array![0.5, 1.0, -1.0, 2.0].view(), 2), [1, 3]);
    assert_eq!(chosen_experts(logits.view(), 4), [0, 1, 2, 3]);
}
