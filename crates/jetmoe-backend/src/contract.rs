//! Checks that a graph has the inputs and outputs of its artifact's contract, and gives the shapes of its cache.

use jetmoe_artifact::{Axis, InputSpec, OutputName, Signature};

use crate::{Error, Result};

/// Compares the names of a graph's inputs and outputs with the contract. Returns the outputs in the graph's order.
///
/// # Errors
/// [`Error::Contract`] for names that are missing or unknown.
pub fn check_names(signature: &Signature, inputs: &[String], outputs: &[String]) -> Result<Vec<OutputName>> {
    let expected = signature.inputs.iter().chain(&signature.optional_inputs);
    let expected: Vec<String> = expected.map(|input| input.name.to_string()).collect();
    compare("input", &expected, inputs)?;
    let expected: Vec<String> = signature.outputs.iter().map(|output| output.name.to_string()).collect();
    compare("output", &expected, outputs)?;
    let unknown = |error: jetmoe_artifact::Error| Error::Contract { problem: error.to_string() };
    outputs.iter().map(|name| name.parse().map_err(unknown)).collect()
}

fn compare(what: &str, expected: &[String], found: &[String]) -> Result<()> {
    let absent = |names: &[String], from: &[String]| -> Vec<String> {
        names.iter().filter(|name| !from.contains(name)).cloned().collect()
    };
    let (missing, unknown) = (absent(expected, found), absent(found, expected));
    let problem = match (missing.as_slice(), unknown.as_slice()) {
        ([], []) => return Ok(()),
        (missing, []) => format!("no {what} {}", missing.join(", ")),
        ([], unknown) => format!("the unknown {what} {}", unknown.join(", ")),
        (missing, unknown) => format!("no {what} {} but {}", missing.join(", "), unknown.join(", ")),
    };
    Err(Error::Contract { problem })
}

/// Shape of a cache input for a number of tokens of each sequence.
pub fn past_shape(input: &InputSpec, batch_size: usize, tokens: usize) -> Vec<usize> {
    let size = |axis: &Axis| match axis {
        Axis::Fixed(size) => *size,
        Axis::BatchSize => batch_size,
        Axis::PastSequenceLength | Axis::TotalSequenceLength => tokens,
        Axis::SequenceLength | Axis::LogitsLength => 0,
    };
    input.shape.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
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
}
