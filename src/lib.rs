//! JetMoE outside PyTorch: export to ONNX, inference with several backends, and proof that they agree.
//!
//! This crate contains the `jetmoe` command and re-exports the libraries of the workspace. A service that only runs models
//! depends on [`rt`], the crate `jetmoe-rt`, alone. A model goes from a [`checkpoint`] through [`graph`] and [`artifact`]
//! into [`rt`]; [`export`] does that in one call. [`mod@reference`] computes the same model in Candle, and
//! [`conformance`] compares the two.

pub use jetmoe_artifact as artifact;
pub use jetmoe_checkpoint as checkpoint;
pub use jetmoe_conformance as conformance;
pub use jetmoe_export as export;
pub use jetmoe_graph as graph;
pub use jetmoe_observe as observe;
pub use jetmoe_onnx as onnx;
pub use jetmoe_reference as reference;
pub use jetmoe_rt as rt;
pub use jetmoe_text as text;

/// Compiles the programs in the READMEs and in the guides with the documentation's other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/write-a-service.md")]
#[doc = include_str!("../docs/debug-a-wrong-logit.md")]
#[doc = include_str!("../crates/jetmoe-artifact/README.md")]
#[doc = include_str!("../crates/jetmoe-checkpoint/README.md")]
#[doc = include_str!("../crates/jetmoe-export/README.md")]
#[doc = include_str!("../crates/jetmoe-graph/README.md")]
#[doc = include_str!("../crates/jetmoe-observe/README.md")]
#[doc = include_str!("../crates/jetmoe-onnx/README.md")]
#[doc = include_str!("../crates/jetmoe-reference/README.md")]
#[doc = include_str!("../crates/jetmoe-rt/README.md")]
#[doc = include_str!("../crates/jetmoe-text/README.md")]
struct Guides;
