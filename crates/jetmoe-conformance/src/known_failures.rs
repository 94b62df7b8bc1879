//! Cases that a backend is known to fail.

use std::fmt;

use crate::BackendName;

/// A case that a backend cannot run, with the reason. The suite fails when the case starts to pass, so that no entry
/// outlives its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFailure {
    /// Name of the golden case.
    pub case: &'static str,
    /// Why, with a link or a version.
    pub reason: &'static str,
}

/// Every known failure, by the backend's name. Expected: none.
pub const KNOWN_FAILURES: &[(&str, &[KnownFailure])] = &[("ort", &[]), ("tract", &[]), ("reference", &[])];

/// What the suite reports of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexpected {
    /// It fails and is not listed.
    Failure {
        /// What went wrong.
        problem: String,
    },
    /// It is listed and passes.
    Pass {
        /// The reason in the list.
        reason: &'static str,
    },
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unexpected::Failure { problem } => write!(f, "fails: {problem}"),
            Unexpected::Pass { reason } => {
                write!(f, "passes now: remove it from KNOWN_FAILURES, whose reason was: {reason}")
            }
        }
    }
}

/// Checks the outcome of a case on a backend against [`KNOWN_FAILURES`]. `problem` is what went wrong, if anything did.
///
/// # Errors
/// A failure that is not listed, or a listed failure that passes.
pub fn check_against_known_failures(
    backend: BackendName,
    case: &str,
    problem: Option<String>,
) -> Result<(), Unexpected> {
    let listed = KNOWN_FAILURES.iter().filter(|(name, _)| *name == backend.as_str());
    check(listed.flat_map(|(_, failures)| *failures), case, problem)
}

fn check<'f>(
    listed: impl IntoIterator<Item = &'f KnownFailure>,
    case: &str,
    problem: Option<String>,
) -> Result<(), Unexpected> {
    let known = listed.into_iter().find(|failure| failure.case == case);
    match (problem, known) {
        (None, None) | (Some(_), Some(_)) => Ok(()),
        (Some(problem), None) => Err(Unexpected::Failure { problem }),
        (None, Some(failure)) => Err(Unexpected::Pass { reason: failure.reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[KnownFailure] = &[KnownFailure { case: "odd", reason: "it lacks an operator" }];

    fn failure() -> Option<String> {
        Some("logits are off by 3".to_owned())
    }

    #[test]
    fn a_case_that_passes_and_is_not_listed_is_right() {
        assert_eq!(check(LISTED, "tiny", None), Ok(()));
    }

    #[test]
    fn a_listed_failure_may_fail() {
        assert_eq!(check(LISTED, "odd", failure()), Ok(()));
    }

    #[test]
    fn a_listed_failure_that_passes_fails_the_suite_and_says_what_to_do() {
        let unexpected = check(LISTED, "odd", None).unwrap_err();
        assert_eq!(
            unexpected.to_string(),
            "passes now: remove it from KNOWN_FAILURES, whose reason was: it lacks an operator"
        );
    }

    #[test]
    fn a_listed_failure_excuses_no_other_case_and_no_other_backend() {
        assert_eq!(check(LISTED, "tiny", failure()).unwrap_err().to_string(), "fails: logits are off by 3");
        assert_eq!(check(&[], "odd", failure()).unwrap_err().to_string(), "fails: logits are off by 3");
    }
}
