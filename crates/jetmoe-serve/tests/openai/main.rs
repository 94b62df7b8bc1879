//! The server over HTTP with a trained model on tract: OpenAI's routes against `jetmoe-rt` alone, errors by name, and faults.

#![cfg(feature = "tract")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod chat;
#[path = "../routes/client.rs"]
mod client;
mod completions;
mod documents;
mod errors;
mod faults;
mod limits;
mod log_probabilities;
mod models;
mod server;
#[cfg(feature = "tls")]
mod tls;
