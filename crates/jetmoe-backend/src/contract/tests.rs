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

/// Checks logits and keys of these shapes after a step of two sequences with three new and five cached tokens.
fn check_step(logits_to_keep: LogitsToKeep, logits: &[usize], keys: &[usize]) -> Result<()> {
    let output = |name, shape| OutputSpec { name, element: ElementType::Float32, shape };
    let keys_shape = vec![Axis::BatchSize, Axis::Fixed(2), Axis::TotalSequenceLength, Axis::Fixed(4)];
    let outputs = vec![
        output(OutputName::Logits, vec![Axis::BatchSize, Axis::LogitsLength, Axis::Fixed(7)]),
        output(OutputName::PresentKey(0), keys_shape),
    ];
    let sizes = StepSizes { batch_size: 2, new_tokens: 3, cached_tokens: 5, logits: logits_to_keep };
    let found = [(OutputName::Logits, logits.to_vec()), (OutputName::PresentKey(0), keys.to_vec())];
    check_shapes(&Signature { outputs, ..signature() }, sizes, found)
}

#[test]
fn outputs_of_a_step_have_the_shapes_of_the_signature() {
    const KEYS: [usize; 4] = [2, 2, 8, 4];
    check_step(LogitsToKeep::All, &[2, 3, 7], &KEYS).unwrap();
    for computed in 1..=3 {
        check_step(LogitsToKeep::Last, &[2, computed, 7], &KEYS).unwrap();
    }
    for wrong in [&[2, 1, 7][..], &[3, 3, 7], &[2, 3, 8], &[2, 3], &[], &[2, 3, 7, 1]] {
        check_step(LogitsToKeep::All, wrong, &KEYS).unwrap_err();
    }
    for none_or_too_many in [0, 4] {
        check_step(LogitsToKeep::Last, &[2, none_or_too_many, 7], &KEYS).unwrap_err();
    }
    let why = check_step(LogitsToKeep::All, &[2, 3, 7], &[2, 2, 3, 4]).unwrap_err().to_string();
    assert!(
        why.starts_with(
            "the graph has an output present.0.key of shape [2, 2, 3, 4] instead of [batch_size, 2, \
             past_sequence_length + sequence_length, 4] for 2 sequences with 3 new and 5 cached tokens, unlike what"
        ),
        "{why}"
    );
}
