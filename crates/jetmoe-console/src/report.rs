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
mod tests;
