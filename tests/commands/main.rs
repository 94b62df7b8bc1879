//! `jetmoe`, as its user types it: what it prints, and what becomes of bad input.

#![cfg(all(feature = "ort", feature = "tract"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod artifacts;
mod bench;
mod cache;
mod checkpoints;
mod classify;
mod context;
mod devices;
mod eval;
mod graphs;
mod help;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
#[cfg(unix)]
mod interruption;
mod json_forms;
mod kernels;
#[cfg(target_os = "linux")]
mod libraries;
#[cfg(target_os = "linux")]
mod mapped_files;
mod models;
mod observations;
#[cfg(target_os = "linux")]
mod providers;
mod run;
#[cfg(unix)]
mod serve;
mod telemetry;
mod verify;
