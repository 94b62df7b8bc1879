//! Compares a graph's inputs and outputs with its artifact's signature; shapes of its cache.

use jetmoe_artifact::{Axis, InputSpec, OutputName, Signature};

use crate::{Error, Result};

/// Compares the names of a graph's inputs and outputs with the signature. Returns the outputs in the graph's order.
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
mod tests;
