//! Errors and progress of the libraries: typed, and without a word about the commands above them.

use std::collections::BTreeSet;

use crate::workspace::{DependencyKind, Source, packages, product_files};

/// Code of programs, which print, and speak of their flags. `jetmoe-console` completes the errors of the libraries with
/// what to type.
const PROGRAMS: [&str; 7] = [
    "src/",
    "crates/xtask/",
    "crates/jetmoe-bench/",
    "crates/jetmoe-console/",
    "crates/jetmoe-fuzz/",
    "crates/jetmoe-export/src/main.rs",
    "crates/jetmoe-export/src/hints.rs",
];

fn library_files() -> Vec<Source> {
    let mut files = product_files();
    files.retain(|file| !PROGRAMS.iter().any(|program| file.path.starts_with(program)));
    files
}

/// Paths of the files whose code has a property.
fn paths(files: &[Source], has: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    files.iter().filter(|file| has(&file.code())).map(|file| file.path.as_str()).collect()
}

/// Whether text has a command-line flag in it, as in `--device`.
fn names_a_flag(text: &str) -> bool {
    let is_flag = |word: &str| {
        let name = word.trim_start_matches(['"', '`', '(']).strip_prefix("--");
        name.is_some_and(|name| name.starts_with(|letter: char| letter.is_ascii_lowercase()))
    };
    text.split_whitespace().any(is_flag)
}

#[test]
fn a_library_names_no_flag_and_no_command() {
    let files = library_files();
    let found = paths(&files, |code| names_a_flag(code) || code.contains("cargo xtask"));
    assert!(found.is_empty(), "hints about commands belong to `jetmoe-console`: {found:?}");
}

/// Whether a function that other modules can call, or a trait, has an error that is a text.
fn has_string_error(code: &str) -> bool {
    let signatures = code.match_indices("fn ").map(|(at, _)| {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = code[at..].find(['{', ';']).map_or(code.len(), |length| at + length);
        &code[line..end]
    });
    let mut public = signatures.filter(|signature| signature.trim_start().starts_with("pub"));
    public.any(|signature| signature.contains("-> Result<") && signature.trim_end().ends_with(", String>"))
        || code.contains("type Err = String")
        || code.contains("type Error = String")
}

#[test]
fn no_error_that_crosses_modules_is_a_text() {
    let files = product_files();
    let found = paths(&files, has_string_error);
    assert!(found.is_empty(), "name what is wrong in an error type: {found:?}");
}

#[test]
fn string_errors_are_found_where_they_cross_modules() {
    assert!(has_string_error("pub(crate) fn parse(\n    text: &str,\n) -> Result<u32, String> {"));
    assert!(has_string_error("impl FromStr for A {\n    type Err = String;"));
    assert!(!has_string_error("fn parse(text: &str) -> Result<u32, String> {"));
    assert!(!has_string_error(
        "pub fn parse(text: &Map<u32, String>) -> Result<Vec<(u32, String)>, Error> {"
    ));
    assert!(names_a_flag("or choose --device cpu") && !names_a_flag("a -- b"));
}

/// A library reports progress through a callback; programs draw it.
#[test]
fn only_programs_draw_progress() {
    let packages = packages();
    let draws =
        packages.iter().filter(|package| package.dependencies(DependencyKind::Normal).contains("indicatif"));
    let draws: BTreeSet<&str> = draws.map(|package| package.name.as_str()).collect();
    assert_eq!(draws, BTreeSet::from(["jetmoe-console"]));
}
