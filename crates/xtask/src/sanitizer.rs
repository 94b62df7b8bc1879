//! `ci sanitizer`: the kernels under AddressSanitizer, for every instruction set of this processor.

use anyhow::Result;

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Inputs of the fuzzer: half a minute.
const RUNS: &str = "-runs=4000";

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.run("kernels under AddressSanitizer", &workspace.root, &tests())?;
    steps.run("kernels with any shapes", &workspace.root, &fuzz())
}

/// Tests with the assertions and overflow checks that the dev profile turns off for the kernels. `-Z` needs a nightly
/// compiler or `RUSTC_BOOTSTRAP`.
fn tests() -> CommandLine {
    CommandLine::cargo(["test", "--package", "jetmoe-kernels", "--tests"])
        // with a target, build scripts and macros are compiled without the sanitizer
        .args(["--target", "host-tuple", "--target-dir", "target/sanitized"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on")
}

/// Does what `cargo fuzz run shapes` does with a nightly compiler. The seed is fixed, so that failures are reproducible.
fn fuzz() -> CommandLine {
    CommandLine::cargo(["run", "--release", "--locked", "--bin", "shapes"])
        .args(["--manifest-path", "crates/jetmoe-kernels/fuzz/Cargo.toml"])
        .args(["--target", "host-tuple", "--target-dir", "target/fuzz"])
        .args(["--", RUNS, "-seed=1", "-max_len=400", "-len_control=0", "-artifact_prefix=target/fuzz/"])
        // printing each new function takes longer than fuzzing
        .args(["-verbosity=0", "-print_funcs=0"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "RUSTFLAGS",
            "--cfg fuzzing -Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on -Ccodegen-units=1 \
             -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
             -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
             -Cllvm-args=-sanitizer-coverage-trace-compares",
        )
}
