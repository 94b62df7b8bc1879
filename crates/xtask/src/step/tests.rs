use std::path::Path;
use std::time::Duration;

use super::{CommandLine, Steps, duration, quoted};

#[test]
fn a_command_is_shown_as_a_person_would_type_it() {
    let command =
        CommandLine::cargo(["doc", "--no-deps"]).arg("it's here").env("RUSTDOCFLAGS", "-D warnings");
    assert_eq!(command.to_string(), r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s here'");
}

#[test]
fn standard_input_is_shown_as_an_echo() {
    let command = CommandLine::new("target/debug/jetmoe").arg("run").input("In the beginning");
    assert_eq!(command.to_string(), "echo 'In the beginning' | target/debug/jetmoe run");
}

#[test]
fn an_empty_word_is_quoted() {
    assert_eq!(quoted(""), "''");
}

#[test]
fn a_failed_step_names_itself_and_the_command_to_run_alone() {
    let mut steps = Steps::default();
    let command = CommandLine::cargo(["no-such-subcommand"]);
    let error = steps.run("nonsense", Path::new("."), &command).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains("the step `nonsense` failed"), "{message}");
    assert!(message.ends_with("run it alone with\n    cargo no-such-subcommand"), "{message}");
    assert!(steps.summary().starts_with("nonsense"), "{}", steps.summary());
    assert!(steps.summary().contains("FAILED"), "{}", steps.summary());
}

#[test]
fn a_missing_program_is_named() {
    let error = Steps::default().run("x", Path::new("."), &CommandLine::new("no-such-program")).unwrap_err();
    assert!(format!("{error:#}").contains("`no-such-program` cannot be started"), "{error:#}");
}

#[test]
fn the_summary_has_a_row_per_step_and_the_total() {
    let mut steps = Steps::default();
    steps.run_step("first", "", || Ok(())).unwrap();
    steps.run_step("the second", "", || Ok(())).unwrap();
    let summary = steps.summary();
    let titles: Vec<_> = summary.lines().map(|line| line.get(..10).unwrap_or(line).trim_end()).collect();
    assert_eq!(titles, ["first", "the second", "total"]);
}

#[test]
fn announced_steps_are_numbered() {
    let mut steps = Steps::default();
    assert_eq!(steps.headline("fetch"), "fetch");
    steps.announce(2);
    assert_eq!([steps.headline("build"), steps.headline("run")], ["1/2 build", "2/2 run"]);
    assert_eq!(steps.headline("not announced"), "not announced");
}

#[test]
fn durations_have_a_unit_to_match() {
    assert_eq!(duration(Duration::from_millis(640)), "0.6 s");
    assert_eq!(duration(Duration::from_millis(59_960)), "1 min 00 s");
    assert_eq!(duration(Duration::from_secs(185)), "3 min 05 s");
}
