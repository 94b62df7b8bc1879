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
