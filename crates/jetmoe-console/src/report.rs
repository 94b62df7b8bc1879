//! The text of an error.

use std::error::Error;
use std::io;

use crate::Hint;

/// An error and its causes, from the outermost in.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Whether the reader of standard output closed it, as `head` does.
pub(crate) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// An error with its causes, then the advice of all of them, then the hint.
///
/// The first line of a message says what is wrong; its other lines are lists and advice. A cause whose first line is
/// quoted already is not repeated. A message that quotes the root cause summarises the causes between.
pub(crate) fn describe(error: &(dyn Error + 'static), hint: Hint) -> String {
    let (mut what, mut advice) = (String::new(), String::new());
    let root = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let root = root.split('\n').next().unwrap_or_default();
    for cause in causes(error) {
        if !what.is_empty() && what.contains(root) {
            break;
        }
        let message = cause.to_string();
        let (first, others) = message.split_once('\n').unwrap_or((&message, ""));
        if !what.contains(first) {
            what.push_str(if what.is_empty() { "" } else { ": " });
            what.push_str(first);
        }
        if !others.is_empty() && !advice.contains(others) {
            advice.push('\n');
            advice.push_str(others);
        }
    }
    let hint = hint(error).map_or(String::new(), |hint| format!("\n  {hint}"));
    what + &advice + &hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Because {
        message: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn because(message: &'static str, source: impl Into<Option<Because>>) -> Because {
        let source: Option<Because> = source.into();
        Because { message, source: source.map(Into::into) }
    }

    fn without_hint(error: &(dyn Error + 'static)) -> String {
        describe(error, |_| None)
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = because("cannot read x: no such file", because("no such file", None));
        assert_eq!(without_hint(&error), "cannot read x: no such file");
        let error = because("cannot export", because("cannot read x", None));
        assert_eq!(without_hint(&error), "cannot export: cannot read x");
    }

    #[test]
    fn causes_between_an_error_and_the_root_cause_that_it_quotes_are_left_out() {
        let cause = because("error sending request", because("connection refused", None));
        let error = because("cannot reach the hub: connection refused", cause);
        assert_eq!(without_hint(&error), "cannot reach the hub: connection refused");
    }

    #[test]
    fn advice_and_hint_come_last_and_once() {
        let cause = because("no space left\n  free some", because("disk full\n  free some", None));
        let error = because("cannot export\n  choose another folder", cause);
        let expected =
            "cannot export: no space left: disk full\n  choose another folder\n  free some\n  pass --x";
        assert_eq!(describe(&error, |_| Some("pass --x".to_owned())), expected);
    }

    #[test]
    fn a_closed_pipe_is_found_however_deep() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&Because { message: "cannot print", source: Some(closed.into()) }));
        assert!(!is_closed_pipe(&because("cannot print", None)));
    }
}
