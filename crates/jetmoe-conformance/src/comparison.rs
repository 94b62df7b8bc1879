//! Compares the results of a backend with an expectation.

use std::collections::BTreeMap;

use jetmoe_artifact::{OutputName, Task};
use jetmoe_rt::{Model, TensorMap, TokenBatch};
use ndarray::{Array2, ArrayD, ArrayView1, Axis, Dimension, Ix3};
use serde::Serialize;

use crate::expectation::{best, greedy};
use crate::tolerance::Limit;
use crate::{BackendName, Error, Expectation, Result, Tolerance};

/// Comparison of a backend's results with an expectation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the backend.
    pub backend: String,
    /// Backend and version, such as `ort 1.32.0`.
    pub runtime: String,
    /// The graph file inside the artifact; `None` for the reference.
    pub graph: Option<String>,
    /// Whether every compared tensor is within its tolerance.
    pub passed: bool,
    /// Number of compared tokens, without padding.
    pub tokens: usize,
    /// Errors per kind of tensor.
    pub tensors: Vec<TensorComparison>,
    /// Share of tokens with the expected top-1 next token, or of sequences with the expected class.
    pub top1_agreement: Option<f64>,
    /// Share of tokens, over all routers, with exactly the expected experts.
    pub router_agreement: Option<f64>,
    /// The greedy continuation.
    pub greedy: Option<Greedy>,
    /// Kinds of expected tensors that the graph does not return.
    pub not_compared: Vec<String>,
}

/// Errors of one kind of tensor, over all layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorComparison {
    /// Kind of tensor, such as `present.*.key`.
    pub name: String,
    /// The tensor with the largest error.
    pub worst: String,
    /// Largest absolute difference. Infinite if a value is NaN.
    pub max_absolute_error: f64,
    /// Largest absolute difference, divided by the tensor's largest expected value.
    pub max_relative_error: f64,
    /// Median over the tokens of the root mean square of a token's differences, divided by that of its expected values.
    pub median_token_error: f64,
    /// The tolerance, in words.
    pub tolerance: String,
    /// Whether the error is within the tolerance.
    pub passed: bool,
}

/// Comparison of greedy continuations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Greedy {
    /// Whether all continuations are identical.
    pub identical: bool,
    /// Whether they must be. With arithmetic coarser than float32, a near-tie may be decided differently.
    pub required: bool,
    /// Number of expected tokens.
    pub tokens: usize,
    /// The first difference, in words.
    pub first_difference: Option<String>,
}

/// Runs a model on the inputs of an expectation and compares all tensors that both have.
///
/// # Errors
/// An error of the backend, or a tensor of another shape. Differing values are not an error.
pub fn compare(
    backend: BackendName,
    model: &Model,
    expectation: &Expectation,
    tolerance: Tolerance,
) -> Result<Comparison> {
    let mut session = model.session()?;
    let outputs = session.step(&expectation.batch)?;
    let mut found = outputs.tensors().clone();
    found.extend(session.cache()?);

    let mask = expectation.batch.mask();
    let mut measured = Measurements { tolerance, kinds: BTreeMap::new() };
    let mut not_compared = Vec::new();
    for (name, expected) in &expectation.tensors {
        match found.get(name) {
            Some(found) => {
                measured.add(Compared::Output(*name), found, expected, mask)?;
            }
            None => not_compared.push(name.family().to_owned()),
        }
    }
    if let Some((tokens, expected)) = &expectation.next {
        if model.task() == Task::CausalLm {
            let step = session.step(&TokenBatch::next_tokens(tokens))?;
            let logits = step.logits()?.to_owned().into_dyn();
            measured.add(Compared::NextLogits, &logits, expected, mask)?;
        } else {
            not_compared.push(Compared::NextLogits.name());
        }
    }
    let greedy = match &expectation.greedy {
        Some(expected) if model.task() == Task::CausalLm => {
            Some(compare_greedy(model, expectation, expected, tolerance.demands_equal_tokens())?)
        }
        Some(_) => {
            not_compared.push("greedy continuation".to_owned());
            None
        }
        None => None,
    };
    not_compared.sort();
    not_compared.dedup();

    let tensors = measured.finish();
    let passed = tensors.iter().all(|tensor| tensor.passed)
        && greedy.as_ref().is_none_or(|greedy| greedy.identical || !greedy.required);
    Ok(Comparison {
        backend: backend.to_string(),
        runtime: model.backend(),
        graph: None,
        passed,
        tokens: mask.iter().filter(|counts| **counts).count(),
        tensors,
        top1_agreement: agreement(
            &found,
            &expectation.tensors,
            mask,
            |name| name == OutputName::Logits,
            |logits| vec![best(logits.iter().copied())],
        ),
        router_agreement: agreement(&found, &expectation.tensors, mask, is_router, |logits| {
            chosen_experts(logits, model.config().num_experts_per_token)
        }),
        greedy,
        not_compared,
    })
}

fn compare_greedy(
    model: &Model,
    expectation: &Expectation,
    expected: &[Vec<u32>],
    required: bool,
) -> Result<Greedy> {
    let longest = expected.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let found = greedy(model, &expectation.batch, longest)?;
    let first_difference = expected.iter().zip(&found).enumerate().find_map(|(row, (expected, found))| {
        let place =
            (0..expected.len().max(found.len())).find(|place| expected.get(*place) != found.get(*place))?;
        let word = |id: Option<&u32>| id.map_or("the end".to_owned(), u32::to_string);
        Some(format!(
            "sequence {row}, new token {place}: {} instead of {}",
            word(found.get(place)),
            word(expected.get(place))
        ))
    });
    Ok(Greedy {
        identical: first_difference.is_none(),
        required,
        tokens: expected.iter().map(Vec::len).sum(),
        first_difference,
    })
}

/// A compared tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// An output of the first step.
    Output(OutputName),
    /// The logits of the cached step after it.
    NextLogits,
}

impl Compared {
    fn name(self) -> String {
        match self {
            Compared::Output(name) => name.to_string(),
            Compared::NextLogits => self.kind().to_owned(),
        }
    }

    /// The kind it is reported as.
    fn kind(self) -> &'static str {
        match self {
            Compared::Output(name) => name.family(),
            Compared::NextLogits => "next.logits",
        }
    }

    fn is_logits(self) -> bool {
        matches!(self, Compared::Output(OutputName::Logits) | Compared::NextLogits)
    }

    /// Whether an element belongs to a token and not to padding. Class logits belong to whole sequences, and the cached
    /// step has no padding.
    fn counts(self, mask: &Array2<bool>, index: &[usize]) -> bool {
        let place = match (self, index) {
            (Compared::NextLogits, _) => return true,
            (
                Compared::Output(OutputName::PresentKey(_) | OutputName::PresentValue(_)),
                [row, _, token, _],
            ) => (*row, *token),
            (Compared::Output(_), [row, token, _]) => (*row, *token),
            (Compared::Output(_), _) => return true,
        };
        mask.get(place).copied().unwrap_or(true)
    }
}

fn is_router(name: OutputName) -> bool {
    matches!(name, OutputName::AttentionRouterLogits(_) | OutputName::MlpRouterLogits(_))
}

struct Measurements {
    tolerance: Tolerance,
    kinds: BTreeMap<&'static str, TensorComparison>,
}

impl Measurements {
    /// Adds a tensor to its kind. Compares only the tokens that the first step's `mask`, `[batch, tokens]`, includes.
    fn add(
        &mut self,
        tensor: Compared,
        found: &ArrayD<f32>,
        expected: &ArrayD<f32>,
        mask: &Array2<bool>,
    ) -> Result<()> {
        let name = tensor.name();
        if found.shape() != expected.shape() {
            return Err(Error::Shape {
                tensor: name,
                expected: expected.shape().to_vec(),
                found: found.shape().to_vec(),
            });
        }
        let (mut absolute, mut scale) = (0.0_f64, 0.0_f64);
        let mut tokens = Vec::new();
        let width = found.shape().last().copied().unwrap_or(1).max(1);
        let (mut squared_errors, mut squares) = (0.0_f64, 0.0_f64);
        for (place, ((index, found), expected)) in found.indexed_iter().zip(expected).enumerate() {
            if !tensor.counts(mask, index.slice()) {
                continue;
            }
            let error = f64::from((found - expected).abs());
            absolute = if error.is_nan() { f64::INFINITY } else { absolute.max(error) };
            scale = scale.max(f64::from(expected.abs()));
            squared_errors += error * error;
            squares += f64::from(*expected).powi(2);
            if place % width == width - 1 {
                tokens.push(share_of(squared_errors, squares));
                (squared_errors, squares) = (0.0, 0.0);
            }
        }
        tokens.sort_by(f64::total_cmp);
        let median = tokens.get(tokens.len() / 2).copied().unwrap_or(0.0);
        let relative = if absolute == 0.0 { 0.0 } else { absolute / scale };
        let limit = if tensor.is_logits() { self.tolerance.logits(scale) } else { self.tolerance.others() };
        let (passed, tolerance) = match limit {
            Limit::Absolute(limit) => (absolute <= limit, format!("{limit:.1e} absolute")),
            Limit::Relative(limit) => (relative <= limit, format!("{limit:.0e} of the largest value")),
            Limit::MedianToken(limit) => (median <= limit, format!("{limit} for the median token")),
        };
        let entry = self.kinds.entry(tensor.kind()).or_insert_with(|| TensorComparison {
            name: tensor.kind().to_owned(),
            worst: name.clone(),
            max_absolute_error: 0.0,
            max_relative_error: 0.0,
            median_token_error: 0.0,
            tolerance,
            passed: true,
        });
        if relative > entry.max_relative_error {
            entry.worst = name;
        }
        entry.max_absolute_error = entry.max_absolute_error.max(absolute);
        entry.max_relative_error = entry.max_relative_error.max(relative);
        entry.median_token_error = entry.median_token_error.max(median);
        entry.passed &= passed;
        Ok(())
    }

    fn finish(self) -> Vec<TensorComparison> {
        self.kinds.into_values().collect()
    }
}

/// Root of the squared errors, divided by that of the squared expected values.
fn share_of(squared_errors: f64, squares: f64) -> f64 {
    match squared_errors.sqrt() {
        0.0 => 0.0,
        errors if errors.is_nan() => f64::INFINITY,
        errors => errors / squares.sqrt(),
    }
}

/// Share of tokens for which `decide` gives the same result on found and expected scores.
fn agreement(
    found: &TensorMap,
    expected: &TensorMap,
    mask: &Array2<bool>,
    concerns: impl Fn(OutputName) -> bool,
    decide: impl Fn(ArrayView1<'_, f32>) -> Vec<u32>,
) -> Option<f64> {
    let (mut same, mut all) = (0_usize, 0_usize);
    for (name, expected) in expected.iter().filter(|(name, _)| concerns(**name)) {
        let Some(found) = found.get(name) else { continue };
        let last = Axis(expected.ndim() - 1);
        let per_token = expected.view().into_dimensionality::<Ix3>().is_ok();
        let counts = mask.iter().copied().chain(std::iter::repeat(true));
        for ((found, expected), counts) in found.lanes(last).into_iter().zip(expected.lanes(last)).zip(counts)
        {
            if counts || !per_token {
                all += 1;
                same += usize::from(decide(found) == decide(expected));
            }
        }
    }
    (all > 0).then(|| same as f64 / all as f64)
}

/// Indices of the `k` experts with the largest logits, ascending.
pub(crate) fn chosen_experts(logits: ArrayView1<'_, f32>, k: usize) -> Vec<u32> {
    let mut experts: Vec<u32> = (0..logits.len() as u32).collect();
    experts.sort_by(|left, right| logits[*right as usize].total_cmp(&logits[*left as usize]));
    experts.truncate(k);
    experts.sort_unstable();
    experts
}

#[cfg(test)]
mod tests;
