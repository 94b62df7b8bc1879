//! Every case on every backend against what transformers computed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jetmoe::artifact::Task;
use jetmoe::checkpoint::Architecture;
use jetmoe::conformance::{
    BackendName, Comparison, KNOWN_FAILURES, TensorComparison, Tolerance, check_against_known_failures,
    compare,
};

use crate::fixtures::{Case, Export, Subject};

/// The suite goes through the folders; these are what it must find there.
const CASES: [&str; 12] = [
    "bf16-sharded",
    "classifier",
    "dense",
    "jetmoe-mini",
    "jetmoe-mini-classifier",
    "legacy",
    "linear-rope",
    "llama3-rope",
    "odd",
    "tiny",
    "top1",
    "yarn-rope",
];

#[test]
fn no_case_is_lost() {
    let found: Vec<String> = Case::all().into_iter().map(|case| case.name).collect();
    for name in CASES {
        assert!(found.iter().any(|found| found == name), "{name} is not among {found:?}");
    }
}

#[test]
fn every_known_failure_names_a_case_and_a_backend() {
    let cases = Case::all();
    for (backend, failures) in KNOWN_FAILURES {
        backend.parse::<BackendName>().unwrap();
        for failure in *failures {
            assert!(cases.iter().any(|case| case.name == failure.case), "{} is no case", failure.case);
        }
    }
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_computes_the_golden_values_of_every_case() {
    check_every_case(Subject::ORT, Head::Own);
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_s_own_operators_compute_the_golden_values_of_every_case() {
    check_every_case(Subject::ORT_OWN_OPERATORS, Head::Own);
}

#[cfg(feature = "ort")]
#[test]
fn our_kernels_in_onnx_runtime_compute_the_golden_values_of_every_case() {
    check_every_case(Subject::ORT_KERNELS, Head::Own);
}

#[cfg(feature = "tract")]
#[test]
fn tract_computes_the_golden_values_of_every_case() {
    check_every_case(Subject::TRACT, Head::Own);
}

#[cfg(feature = "tract")]
#[test]
fn our_kernels_in_tract_compute_the_golden_values_of_every_case() {
    check_every_case(Subject::TRACT_KERNELS, Head::Own);
}

#[test]
fn the_reference_computes_the_golden_values_of_every_case() {
    check_every_case(Subject::REFERENCE, Head::Own);
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_computes_the_golden_values_of_every_backbone() {
    check_every_case(Subject::ORT, Head::None);
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_s_own_operators_compute_the_golden_values_of_every_backbone() {
    check_every_case(Subject::ORT_OWN_OPERATORS, Head::None);
}

#[cfg(feature = "ort")]
#[test]
fn our_kernels_in_onnx_runtime_compute_the_golden_values_of_every_backbone() {
    check_every_case(Subject::ORT_KERNELS, Head::None);
}

#[cfg(feature = "tract")]
#[test]
fn tract_computes_the_golden_values_of_every_backbone() {
    check_every_case(Subject::TRACT, Head::None);
}

#[cfg(feature = "tract")]
#[test]
fn our_kernels_in_tract_compute_the_golden_values_of_every_backbone() {
    check_every_case(Subject::TRACT_KERNELS, Head::None);
}

#[test]
fn the_reference_computes_the_golden_values_of_every_backbone() {
    check_every_case(Subject::REFERENCE, Head::None);
}

/// What stands on top of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// What the checkpoint was trained with.
    Own,
    /// Nothing: the hidden state after the final norm.
    None,
}

/// Runs all cases, whatever fails, so that one run names every failure.
fn check_every_case(subject: Subject, head: Head) {
    let mut largest_errors = LargestErrors::default();
    let problems: Vec<String> = Case::all()
        .iter()
        .filter_map(|case| {
            let outcome = catch_unwind(AssertUnwindSafe(|| check(case, subject, head, &mut largest_errors)));
            let outcome = outcome.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
            let unexpected = check_against_known_failures(subject.backend(), &case.name, outcome.err()).err();
            unexpected.map(|unexpected| format!("{} on {subject} {unexpected}", case.name))
        })
        .collect();
    println!("{subject}, {head:?} head: {largest_errors}");
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn check(
    case: &Case,
    subject: Subject,
    head: Head,
    largest_errors: &mut LargestErrors,
) -> Result<(), String> {
    let checkpoint = case.checkpoint();
    let architecture = checkpoint.config().architecture;
    let task = match head {
        Head::Own => None,
        Head::None => Some(Task::Backbone),
    };
    let export = Export::of(checkpoint, task);
    let expectation = export.expectation(subject, case.golden());
    let comparison = compare(subject.backend(), &export.load(subject), &expectation, Tolerance::Float32)
        .map_err(|error| error.to_string())?;
    largest_errors.add(&comparison);
    let problems =
        problems(&comparison, &kinds(architecture), &left_out(subject.backend(), head, architecture));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// What a golden file holds.
fn kinds(architecture: Architecture) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::from([
        "attn_router_logits.*",
        "hidden_states.*",
        "last_hidden_state",
        "logits",
        "mlp_router_logits.*",
    ]);
    if architecture != Architecture::SequenceClassification {
        kinds.extend(["present.*.key", "present.*.value", "next.logits", GREEDY]);
    }
    kinds
}

/// What of it a model cannot be compared with, because it does not give it.
fn left_out(backend: BackendName, head: Head, architecture: Architecture) -> BTreeSet<&'static str> {
    match (head, backend) {
        // the reference gives everything that it computes
        (Head::Own, BackendName::REFERENCE) => BTreeSet::new(),
        (Head::Own, _) => BTreeSet::from(["last_hidden_state"]),
        (Head::None, _) if architecture == Architecture::SequenceClassification => BTreeSet::from(["logits"]),
        (Head::None, _) => BTreeSet::from(["logits", "next.logits", GREEDY]),
    }
}

const GREEDY: &str = "greedy continuation";

/// The level tolerates more of logits far larger than the golden ones; a golden case gets none of that.
fn is_beyond_the_golden_scale(tensor: &TensorComparison) -> bool {
    let is_logits = ["logits", "next.logits"].contains(&tensor.name.as_str());
    is_logits && tensor.max_absolute_error > Tolerance::Float32.logits_absolute()
}

/// Everything about a comparison that is not as it must be.
fn problems(comparison: &Comparison, kinds: &BTreeSet<&str>, left_out: &BTreeSet<&str>) -> Vec<String> {
    let mut problems: Vec<String> = comparison
        .tensors
        .iter()
        .filter(|tensor| !tensor.passed || is_beyond_the_golden_scale(tensor))
        .map(|tensor| {
            format!(
                "{} is off by {:.1e} absolute, {:.1e} relative, tolerated {}",
                tensor.worst, tensor.max_absolute_error, tensor.max_relative_error, tensor.tolerance
            )
        })
        .collect();
    if let Some(difference) = comparison.greedy.as_ref().and_then(|greedy| greedy.first_difference.as_ref()) {
        problems.push(format!("the greedy continuation differs: {difference}"));
    }
    let mut compared: BTreeSet<&str> = comparison.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    compared.extend(comparison.greedy.as_ref().map(|_| GREEDY));
    if compared != kinds - left_out {
        problems.push(format!("compared {compared:?} of {kinds:?}"));
    }
    if !comparison.not_compared.iter().map(String::as_str).eq(left_out.iter().copied()) {
        problems.push(format!("not compared: {:?}, expected {left_out:?}", comparison.not_compared));
    }
    if comparison.router_agreement != Some(1.0) {
        problems.push(format!("router agreement is {:?}", comparison.router_agreement));
    }
    if comparison.top1_agreement != (!left_out.contains("logits")).then_some(1.0) {
        problems.push(format!("top-1 agreement is {:?}", comparison.top1_agreement));
    }
    if !comparison.passed && problems.is_empty() {
        problems.push("it did not pass".to_owned());
    }
    problems
}

/// The largest errors over all cases, absolute for logits and relative for the rest, as the tolerance counts them.
#[derive(Debug, Default)]
struct LargestErrors(BTreeMap<String, f64>);

impl LargestErrors {
    fn add(&mut self, comparison: &Comparison) {
        for tensor in &comparison.tensors {
            let error = if tensor.name.ends_with("logits") {
                tensor.max_absolute_error
            } else {
                tensor.max_relative_error
            };
            let largest = self.0.entry(tensor.name.clone()).or_default();
            *largest = largest.max(error);
        }
    }
}

impl fmt::Display for LargestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> = self.0.iter().map(|(name, error)| format!("{name} {error:.1e}")).collect();
        f.write_str(&errors.join(", "))
    }
}
