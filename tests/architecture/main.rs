//! The invariants of `ARCHITECTURE.md`, as far as a program can check them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod documents;
mod errors;
mod layers;
mod manifests;
mod sources;
mod workspace;
