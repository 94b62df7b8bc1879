//! `ci sanitizer`: the kernels under AddressSanitizer, for every instruction set of this processor.

use anyhow::Result;

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Runs the tests with the assertions and overflow checks that the dev profile turns off for the kernels. `-Z` needs a nightly
/// compiler or `RUSTC_BOOTSTRAP`.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let tests = CommandLine::cargo(["test", "--package", "jetmoe-kernels", "--tests"])
        // with a target, build scripts and macros are compiled without the sanitizer
        .args(["--target", "host-tuple", "--target-dir", "target/sanitized"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on");
    steps.run("kernels under AddressSanitizer", &workspace.root, &tests)
}
