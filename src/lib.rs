//! JetMoE outside PyTorch: export to ONNX, inference in several runtimes, and proof that they agree.
//!
//! This crate gathers the workspace's libraries under one name and holds the `jetmoe` command. A service that only
//! runs models depends on [`rt`] (the crate `jetmoe-rt`) alone.

pub use jetmoe_artifact as artifact;
pub use jetmoe_checkpoint as checkpoint;
pub use jetmoe_conformance as conformance;
pub use jetmoe_export as export;
pub use jetmoe_graph as graph;
pub use jetmoe_reference as reference;
pub use jetmoe_rt as rt;
