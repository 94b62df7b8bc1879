//! The driver: runs the commands on mutated models, and counts how they end.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of development prints to the terminal"
)]

#[cfg(target_os = "linux")]
mod driver;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    driver::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!(
        "error: the driver reads /proc and runs on Linux only; the libFuzzer targets run elsewhere too"
    );
    ExitCode::from(2)
}
