//! Routes of a server over HTTP, with models on tract: what they return is what `jetmoe-rt` computes, bit by bit.

#![cfg(feature = "tract")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod classification;
mod client;
mod embeddings;
mod generation;
mod inference;
mod responses;
mod server;
