//! Every case against what transformers computed for it.

use std::collections::BTreeSet;

use jetmoe::artifact::Task;
use jetmoe::checkpoint::Architecture;
use jetmoe::conformance::{Comparison, TensorComparison, Tolerance};

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, measured};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    for (group, head) in [("golden", Head::Own), ("backbone", Head::None)] {
        for case in Case::all() {
            suite.add(subject, format!("{group}::{}", case.name), move |subject| check(&case, subject, head));
        }
    }
}

/// What follows the last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// The head that the checkpoint was trained with.
    Own,
    /// None: the graph gives the hidden state after the final norm.
    None,
}

fn check(case: &Case, subject: Subject, head: Head) {
    let export = case.export_for((head == Head::None).then_some(Task::Backbone));
    let architecture = export.checkpoint.config().architecture;
    let comparison = subject.compare(&export.load(subject), &export.expectation(subject, case.golden()));
    measured(&format!("{subject}, {}, {head:?} head: {}", case.name, errors(&comparison)));
    let problems = problems(&comparison, &kinds(architecture), &left_out(subject, head, architecture));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
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

/// What of it a subject cannot be compared with, because it does not compute it.
fn left_out(subject: Subject, head: Head, architecture: Architecture) -> BTreeSet<&'static str> {
    match head {
        // the reference returns everything that it computes
        Head::Own if subject.is_reference() => BTreeSet::new(),
        Head::Own => BTreeSet::from(["last_hidden_state"]),
        Head::None if architecture == Architecture::SequenceClassification => BTreeSet::from(["logits"]),
        Head::None => BTreeSet::from(["logits", "next.logits", GREEDY]),
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

/// The largest errors, absolute for logits and relative for the rest, as the tolerance counts them.
fn errors(comparison: &Comparison) -> String {
    let errors = comparison.tensors.iter().map(|tensor| {
        let is_logits = tensor.name.ends_with("logits");
        let error = if is_logits { tensor.max_absolute_error } else { tensor.max_relative_error };
        format!("{} {error:.1e}", tensor.name)
    });
    errors.collect::<Vec<_>>().join(", ")
}
