//! The contract between exporter and runtime.
//!
//! An artifact is a folder with ONNX graphs, their weights, the tokenizer, and a manifest that says what each graph
//! is for and what its files must hold. This crate knows the folder's layout, the manifest, and the names, types and
//! shapes of every graph's inputs and outputs. It neither builds nor runs a graph.

mod artifact;
mod error;
mod kind;
mod manifest;
pub mod names;
mod quantization;
mod signature;

pub use artifact::Artifact;
pub use error::{Error, Result};
pub use jetmoe_format::{ElementType, Scheme, WeightFormat};
pub use kind::{CacheUpdate, OptionalOutput, Precision, Profile, Task};
pub use manifest::{
    ArtifactFile, CheckpointRecord, GraphRecord, MANIFEST_SCHEMA, Manifest, TensorRecord, VerificationRecord,
};
pub use names::{InputName, OutputName};
pub use quantization::{CalibrationRecord, ModelPart, OverrideError, StorageOverride, WeightPlan};
pub use signature::{Axis, InputSpec, OutputSpec, Signature};
