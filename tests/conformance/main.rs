//! Every backend is held to the same answers: what transformers computed for the fixtures, what the Candle reference
//! computes, and what a session promises.
//!
//! The suite makes its tests as it starts, one for each backend, profile and case, so that a new backend, golden case or
//! precision needs no line here. The backends are those of this build, the cases are the folders of `tests/fixtures`, and
//! `known_failures.rs` lists the tests that a backend cannot pass. A test's name is `backend::profile::group::test`:
//!
//! ```text
//! cargo test --workspace --test conformance -- --list
//! cargo test --workspace --test conformance -- ort::portable::golden
//! cargo test --workspace --test conformance -- --exact tract::native::sessions::padding_gives_finite_numbers
//! ```
//!
//! With `--nocapture` the tests print what they measured. `JETMOE_TEST_DEVICE=openvino` runs the suite on another device.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and prints what it measured"
)]

mod cache_formats;
mod calibration;
mod classifications;
mod closeness;
mod configurations;
mod failures;
mod fixtures;
mod generation;
mod golden;
mod known_failures;
mod mistakes;
mod native;
mod observations;
mod odd;
mod perplexity;
mod precisions;
mod quality;
mod scoring;
mod sessions;
mod settings;
mod slots;
mod sparsity;
mod subject;
mod suite;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use crate::subject::Subject;
use crate::suite::Suite;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    suite::print_measurements(arguments.nocapture);
    let mut suite = Suite::default();
    for subject in Subject::all() {
        golden::add_tests(&mut suite, subject);
        sessions::add_tests(&mut suite, subject);
        slots::add_tests(&mut suite, subject);
        failures::add_tests(&mut suite, subject);
        generation::add_tests(&mut suite, subject);
        quality::add_tests(&mut suite, subject);
        scoring::add_tests(&mut suite, subject);
        classifications::add_tests(&mut suite, subject);
        sparsity::add_tests(&mut suite, subject);
        mistakes::add_tests(&mut suite, subject);
        precisions::add_tests(&mut suite, subject);
        perplexity::add_tests(&mut suite, subject);
        native::add_tests(&mut suite, subject);
        cache_formats::add_tests(&mut suite, subject);
        configurations::add_tests(&mut suite, subject);
        calibration::add_tests(&mut suite, subject);
        observations::add_tests(&mut suite, subject);
    }
    closeness::add_tests(&mut suite);
    known_failures::add_tests(&mut suite);
    fixtures::add_tests(&mut suite);
    classifications::add_general_tests(&mut suite);
    native::add_general_tests(&mut suite);
    precisions::add_general_tests(&mut suite);
    odd::add_tests(&mut suite);
    settings::add_tests(&mut suite);
    let conclusion = libtest_mimic::run(&arguments, suite.into_trials());
    fixtures::remove_temporary_folders();
    conclusion.exit_code()
}
