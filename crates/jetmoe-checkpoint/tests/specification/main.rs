//! Behaviour of `jetmoe-checkpoint`, one file per subject.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod config;
mod digest;
mod fixtures;
mod generation;
mod quantized;
mod rope;
mod tokenizer_files;
mod weights;
mod weights_file;
