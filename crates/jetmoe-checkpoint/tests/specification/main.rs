//! Behaviour of `jetmoe-checkpoint`, one file per subject. (The hub's tests use private settings: `src/hub/tests.rs`.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod config;
mod digest;
mod fixtures;
mod generation;
mod rope;
mod source;
mod weights;
