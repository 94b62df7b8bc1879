//! JetMoE outside PyTorch: export to ONNX, inference in several runtimes, and proof that they agree.
//!
//! This crate holds the `jetmoe` command and gathers the workspace's libraries under one name. A service that only runs
//! models depends on [`rt`], the crate `jetmoe-rt`, alone. From a checkpoint to text, a model goes through
//! [`checkpoint`], [`graph`] and [`artifact`] into [`rt`]; [`export`] makes that one call. [`mod@reference`]
//! computes the same in Candle, and [`conformance`] compares the two.

pub use jetmoe_artifact as artifact;
pub use jetmoe_checkpoint as checkpoint;
pub use jetmoe_conformance as conformance;
pub use jetmoe_export as export;
pub use jetmoe_graph as graph;
pub use jetmoe_reference as reference;
pub use jetmoe_rt as rt;

/// The programs in the README and in the guides, compiled with the documentation's other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/write-a-service.md")]
#[doc = include_str!("../docs/debug-a-wrong-logit.md")]
struct Guides;
