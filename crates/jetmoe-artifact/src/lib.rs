//! The contract between exporter and runtime.
//!
//! An artifact is a folder with ONNX graphs, their weights, the tokenizer, and a manifest with the task, files and digests of
//! each graph. This crate defines the folder's layout, the [`Manifest`], and names, types and shapes of the inputs and
//! outputs of every graph ([`Signature`]). It neither builds nor runs a graph.
//!
//! ```no_run
//! use jetmoe_artifact::{Artifact, Precision};
//!
//! let artifact = Artifact::open("path/to/artifact")?;
//! let graph = artifact.graph(Some(Precision::Q4), None)?;
//! for input in artifact.signature(graph).inputs {
//!     println!("{}: {:?}", input.name, input.shape);
//! }
//! # Ok::<(), jetmoe_artifact::Error>(())
//! ```

mod artifact;
mod error;
mod kind;
mod manifest;
pub mod names;
mod quantization;
mod signature;

pub use artifact::{Artifact, MAX_GRAPH_BYTES};
pub use error::{Error, Result};
pub use jetmoe_format::{CacheFormat, ElementType, Scheme, UnknownName, WeightFormat};
pub use kind::{CacheUpdate, ObservedValue, OptionalOutput, Precision, Profile, Task};
pub use manifest::{
    ArtifactFile, CheckpointRecord, GraphRecord, MANIFEST_SCHEMA, Manifest, TensorRecord, VerificationRecord,
};
pub use names::{InputName, OutputName};
pub use quantization::{CalibrationRecord, ModelPart, OverrideError, StorageOverride, WeightPlan};
pub use signature::{Axis, InputSpec, OutputSpec, Signature};
