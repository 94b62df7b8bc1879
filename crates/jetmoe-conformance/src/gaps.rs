use crate::Backend;

/// A case that a backend cannot run, with the reason. The suite fails when the case starts to pass, so that no gap
/// outlives its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The backend that cannot.
    pub backend: Backend,
    /// Name of the golden case.
    pub case: &'static str,
    /// Why, with a link or a version.
    pub reason: &'static str,
}

/// Every gap there is. Expected: none.
pub const KNOWN_GAPS: &[Gap] = &[];

/// Judges a case on a backend by the gaps that are known: `outcome` says what went wrong, if anything did.
///
/// # Errors
/// A failure that is no known gap, and a known gap that passes; in words for who maintains the list.
pub fn judge(gaps: &[Gap], backend: Backend, case: &str, outcome: Result<(), String>) -> Result<(), String> {
    let known = gaps.iter().find(|gap| gap.backend == backend && gap.case == case);
    match (outcome, known) {
        (Ok(()), None) | (Err(_), Some(_)) => Ok(()),
        (Err(problem), None) => Err(format!("{case} fails on {backend}: {problem}")),
        (Ok(()), Some(gap)) => Err(format!(
            "{case} passes on {backend} now: remove the gap from KNOWN_GAPS, whose reason was: {}",
            gap.reason
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: &[Gap] = &[Gap { backend: Backend::Tract, case: "odd", reason: "tract lacks an operator" }];

    fn failure() -> Result<(), String> {
        Err("logits are off by 3".to_owned())
    }

    #[test]
    fn a_case_that_passes_and_is_no_gap_is_right() {
        assert_eq!(judge(GAPS, Backend::Tract, "tiny", Ok(())), Ok(()));
    }

    #[test]
    fn a_listed_gap_may_fail() {
        assert_eq!(judge(GAPS, Backend::Tract, "odd", failure()), Ok(()));
    }

    #[test]
    fn a_listed_gap_that_passes_fails_the_suite_and_says_what_to_do() {
        let problem = judge(GAPS, Backend::Tract, "odd", Ok(())).unwrap_err();
        assert_eq!(
            problem,
            "odd passes on tract now: remove the gap from KNOWN_GAPS, whose reason was: tract lacks an operator"
        );
    }

    #[test]
    fn a_gap_excuses_no_other_case_and_no_other_backend() {
        let problem = judge(GAPS, Backend::Tract, "tiny", failure()).unwrap_err();
        assert_eq!(problem, "tiny fails on tract: logits are off by 3");
        let problem = judge(GAPS, Backend::Ort, "odd", failure()).unwrap_err();
        assert_eq!(problem, "odd fails on ort: logits are off by 3");
    }
}
