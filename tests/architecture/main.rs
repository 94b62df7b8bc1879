//! What `ARCHITECTURE.md` promises, as far as a program can check it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod documents;
mod layers;
mod manifests;
mod sources;
mod workspace;
