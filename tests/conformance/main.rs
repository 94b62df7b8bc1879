//! Every backend held to the same answers: what transformers computed for the fixtures, and what a session promises.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and says what it measured"
)]

#[cfg(feature = "ort")]
mod calibration;
mod closeness;
mod fixtures;
mod generation;
mod golden;
mod mistakes;
#[cfg(feature = "ort")]
mod native;
#[cfg(feature = "ort")]
mod precisions;
mod quality;
mod sessions;
mod sparsity;
