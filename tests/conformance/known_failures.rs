//! Tests that a backend cannot pass, each with its reason.

use crate::suite::{Suite, named};

/// A test that a backend fails. The suite fails once the test passes, so that no entry outlives its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownFailure {
    /// The name of the backend.
    pub(crate) backend: &'static str,
    /// The test's name after the backend, as in `portable::golden::odd`, or a group of tests of which each fails, as in
    /// `portable::truncation`.
    pub(crate) test: &'static str,
    /// Why it fails, with a link or a version.
    pub(crate) reason: &'static str,
}

impl KnownFailure {
    /// Whether it is about a test of its backend.
    pub(crate) fn covers(&self, test: &str) -> bool {
        test.strip_prefix(self.test).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

/// Every known failure.
pub(crate) const KNOWN_FAILURES: &[KnownFailure] = &[];

/// Turns the outcome of a test around if the backend is known to fail it.
///
/// # Errors
/// The problem of a test that fails unexpectedly, or a known failure that passes.
pub(crate) fn check_against_known_failures(
    known: &[KnownFailure],
    backend: &str,
    test: &str,
    outcome: Result<(), String>,
) -> Result<(), String> {
    let known = known.iter().find(|known| known.backend == backend && known.covers(test));
    match (outcome, known) {
        (Err(_), Some(_)) => Ok(()),
        (Ok(()), Some(known)) => Err(format!(
            "{test} passes on {backend} now: remove it from KNOWN_FAILURES, where the reason was: {}",
            known.reason
        )),
        (outcome, None) => outcome,
    }
}

pub(crate) fn add_tests(suite: &mut Suite) {
    suite.add_general_group(
        "known_failures",
        named![
            a_test_that_is_not_listed_keeps_its_outcome,
            a_listed_test_may_fail,
            a_listed_test_that_passes_fails_the_suite_and_names_the_entry_to_remove,
            an_entry_excuses_no_other_test_and_no_other_backend,
            a_listed_group_covers_its_tests,
        ],
    );
}

const ODD: &[KnownFailure] =
    &[KnownFailure { backend: "tract", test: "portable::golden::odd", reason: "tract lacks an operator" }];

fn failure() -> Result<(), String> {
    Err("logits are off by 3".to_owned())
}

fn a_test_that_is_not_listed_keeps_its_outcome() {
    assert_eq!(check_against_known_failures(ODD, "tract", "portable::golden::tiny", Ok(())), Ok(()));
    assert_eq!(check_against_known_failures(ODD, "tract", "portable::golden::tiny", failure()), failure());
}

fn a_listed_test_may_fail() {
    assert_eq!(check_against_known_failures(ODD, "tract", "portable::golden::odd", failure()), Ok(()));
}

fn a_listed_test_that_passes_fails_the_suite_and_names_the_entry_to_remove() {
    let problem = check_against_known_failures(ODD, "tract", "portable::golden::odd", Ok(())).unwrap_err();
    assert_eq!(
        problem,
        "portable::golden::odd passes on tract now: remove it from KNOWN_FAILURES, where the reason was: tract lacks \
         an operator"
    );
}

fn an_entry_excuses_no_other_test_and_no_other_backend() {
    assert_eq!(check_against_known_failures(ODD, "tract", "portable::backbone::odd", failure()), failure());
    assert_eq!(check_against_known_failures(ODD, "tract", "portable::golden::oddity", failure()), failure());
    assert_eq!(check_against_known_failures(ODD, "ort", "portable::golden::odd", failure()), failure());
}

fn a_listed_group_covers_its_tests() {
    let golden = [KnownFailure { test: "portable::golden", ..ODD[0] }];
    assert_eq!(check_against_known_failures(&golden, "tract", "portable::golden::odd", failure()), Ok(()));
    assert!(check_against_known_failures(&golden, "tract", "portable::golden::tiny", Ok(())).is_err());
}
