//! `ci sanitizer`: the kernels under AddressSanitizer, for every instruction set of this processor.

use anyhow::Result;

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.run("kernels under AddressSanitizer", &workspace.root, &tests())
}

/// `-Z` needs a nightly compiler or this variable. The dev profile leaves the kernels' own checks out; here they are in.
fn tests() -> CommandLine {
    CommandLine::cargo(["test", "--package", "jetmoe-kernels", "--tests"])
        // with a target, build scripts and macros are compiled without the sanitizer
        .args(["--target", "host-tuple", "--target-dir", "target/sanitized"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on")
}
