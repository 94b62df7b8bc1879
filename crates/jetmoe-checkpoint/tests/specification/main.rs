//! What `jetmoe-checkpoint` promises, one file a subject. (The hub's tests need its private settings: `src/hub/tests.rs`.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod config;
mod digest;
mod fixtures;
mod generation;
mod rope;
mod source;
mod weights;
