//! `jetmoe-export`, as its user types it: what it prints, what it leaves, and what becomes of bad input.

#![cfg(all(feature = "ort", feature = "tract"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod calibration;
mod checkpoints;
#[cfg(target_os = "linux")]
mod disk;
mod export;
#[cfg(feature = "hub")]
mod hub;
#[cfg(unix)]
mod interruption;
#[cfg(unix)]
mod links;
mod output;

use jetmoe_rt::cache_folder;
use jetmoe_testing::TestContext;

const PROGRAM: &str = env!("CARGO_BIN_EXE_jetmoe-export");

fn new_context() -> TestContext {
    TestContext::new("jetmoe-export", PROGRAM, cache_folder().as_deref())
}
