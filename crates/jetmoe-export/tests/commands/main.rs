//! `jetmoe-export`, as its user types it: what it prints, what it leaves, and what becomes of bad input.

#![cfg(all(feature = "ort", feature = "tract"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

/// The command that these tests are about.
const NAME: &str = "jetmoe-export";
/// Where it lies.
const PROGRAM: &str = env!("CARGO_BIN_EXE_jetmoe-export");

mod calibration;
mod checkpoints;
#[cfg(target_os = "linux")]
mod disk;
mod export;
#[cfg(unix)]
mod interruption;
mod output;

// shared with the tests of the command `jetmoe`
#[path = "../../../../tests/commands/damage.rs"]
mod damage;
#[allow(dead_code, reason = "not every command needs everything")]
#[path = "../../../../tests/commands/workbench.rs"]
mod workbench;
