//! Compares a graph's inputs and outputs with its artifact's signature; shapes of its cache and of the outputs of a step.

use std::fmt;

use jetmoe_artifact::{Axis, InputSpec, OutputName, Signature};

use crate::{Error, LogitsToKeep, Result, StepInputs};

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
        Axis::BatchSize | Axis::CacheBatchSize => batch_size,
        Axis::PastSequenceLength | Axis::TotalSequenceLength => tokens,
        Axis::SequenceLength | Axis::LogitsLength | Axis::SequenceCount => 0,
    };
    input.shape.iter().map(size).collect()
}

/// Bytes of the cache of one sequence of so many tokens; 0 for a graph without a cache.
pub fn cache_bytes(signature: &Signature, tokens: usize) -> u64 {
    let parts = signature.inputs.iter().filter(|input| input.name.is_cache());
    let bytes = parts.map(|input| {
        let sizes = past_shape(input, 1, tokens);
        input.element.bytes(sizes.iter().fold(1, |product: u64, size| product.saturating_mul(*size as u64)))
    });
    bytes.fold(0, u64::saturating_add)
}

/// Sizes of a step, from which the shapes of its outputs follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSizes {
    /// Sequences.
    pub batch_size: usize,
    /// New tokens of each.
    pub new_tokens: usize,
    /// Tokens of each in the cache before the step.
    pub cached_tokens: usize,
    /// Which logits will be read.
    pub logits: LogitsToKeep,
}

impl From<&StepInputs> for StepSizes {
    fn from(inputs: &StepInputs) -> Self {
        let (batch_size, new_tokens) = inputs.input_ids.dim();
        let cached_tokens = inputs.attention_mask.ncols().saturating_sub(new_tokens);
        StepSizes { batch_size, new_tokens, cached_tokens, logits: inputs.logits }
    }
}

/// Compares the shapes of what a step returned with the signature, before anything takes elements out of them.
///
/// # Errors
/// [`Error::Contract`] for the first output of another shape.
pub fn check_shapes(
    signature: &Signature,
    sizes: StepSizes,
    outputs: impl IntoIterator<Item = (OutputName, Vec<usize>)>,
) -> Result<()> {
    for (name, found) in outputs {
        let Some(output) = signature.outputs.iter().find(|output| output.name == name) else { continue };
        let fits = |(axis, found): (&Axis, &usize)| match axis {
            Axis::Fixed(size) => found == size,
            Axis::BatchSize | Axis::CacheBatchSize => *found == sizes.batch_size,
            // a backend may compute more logits than will be read
            Axis::SequenceLength | Axis::LogitsLength
                if name == OutputName::Logits && sizes.logits == LogitsToKeep::Last =>
            {
                (1..=sizes.new_tokens).contains(found)
            }
            Axis::SequenceLength | Axis::LogitsLength => *found == sizes.new_tokens,
            // one place for each token, in whole heads
            Axis::TotalSequenceLength if name == OutputName::AttendedKeys => *found > 0,
            Axis::PastSequenceLength => *found == sizes.cached_tokens,
            Axis::SequenceCount => *found == 0,
            Axis::TotalSequenceLength => *found == sizes.cached_tokens + sizes.new_tokens,
        };
        if output.shape.len() != found.len() || !output.shape.iter().zip(&found).all(fits) {
            let expected: Vec<String> = output.shape.iter().map(ToString::to_string).collect();
            let expected = expected.join(", ");
            let problem = format!("an output {name} of shape {found:?} instead of [{expected}] for {sizes}");
            return Err(Error::Contract { problem });
        }
    }
    Ok(())
}

impl fmt::Display for StepSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StepSizes { batch_size, new_tokens, cached_tokens, .. } = self;
        write!(f, "{batch_size} sequences with {new_tokens} new and {cached_tokens} cached tokens")
    }
}

#[cfg(test)]
mod tests;
