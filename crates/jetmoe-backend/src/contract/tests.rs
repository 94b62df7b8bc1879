use jetmoe_artifact::{CacheUpdate, ElementType, InputName, OutputSpec};

use super::*;

fn signature() -> Signature {
    let past = vec![Axis::BatchSize, Axis::Fixed(2), Axis::PastSequenceLength, Axis::Fixed(4)];
    let input = |name, element, shape| InputSpec { name, element, shape };
    Signature {
        inputs: vec![
            input(InputName::InputIds, ElementType::Int64, vec![Axis::BatchSize, Axis::SequenceLength]),
            input(InputName::PastKey(0), ElementType::Float32, past),
        ],
        optional_inputs: Vec::new(),
        outputs: vec![OutputSpec {
            name: OutputName::Logits,
            element: ElementType::Float32,
            shape: vec![Axis::BatchSize],
        }],
        cache_update: CacheUpdate::Append,
    }
}

fn check(inputs: &[&str], outputs: &[&str]) -> Result<Vec<OutputName>> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    check_names(&signature(), &owned(inputs), &owned(outputs))
}

#[test]
fn names_may_come_in_any_order() {
    let outputs = check(&["past_key_values.0.key", "input_ids"], &["logits"]);
    assert_eq!(outputs.unwrap(), [OutputName::Logits]);
}

#[test]
fn a_missing_and_an_unknown_name_are_named() {
    let why = check(&["input_ids"], &["logits"]).unwrap_err().to_string();
    assert!(why.starts_with("the graph has no input past_key_values.0.key, "), "{why}");
    let why = check(&["input_ids", "past_key_values.0.key", "x"], &["logits"]).unwrap_err().to_string();
    assert!(why.starts_with("the graph has the unknown input x, "), "{why}");
    let why = check(&["input_ids", "past_key_values.0.key"], &["y"]).unwrap_err().to_string();
    assert!(why.starts_with("the graph has no output logits but y, "), "{why}");
}

#[test]
fn an_empty_cache_has_no_token() {
    assert_eq!(past_shape(&signature().inputs[1], 3, 0), [3, 2, 0, 4]);
}
