//! JetMoE's computation graph, built operator by operator and written as ONNX.
//!
//! [`build`] returns the [`Graph`] of a configuration and [`GraphOptions`]; nothing else decides its content.
//! Weights are references into a checkpoint until [`write()`] streams them into the external data file, so memory does
//! not grow with the model. [`text::render`] prints a graph for review. This crate knows no backend.

mod builder;
mod conversion;
mod dimension;
mod error;
mod graph;
mod model;
mod opset;
mod partial_file;
mod picture;
mod serialize;
pub mod text;
mod weight;
mod writer;

use std::collections::BTreeSet;

use jetmoe_artifact::{CacheFormat, OptionalOutput, Precision, Profile, Task, WeightPlan};
pub use jetmoe_format::ElementType;
pub use jetmoe_quantize::Rounding;

pub use conversion::{QuantizedRows, Quantizer};
pub use dimension::{Dimension, Shape};
pub use error::{Error, Result};
pub use graph::{Graph, Operator};
pub use model::build;
pub use opset::Opset;
pub use picture::dot;
pub use weight::Weight;
pub use writer::{WrittenGraph, write, write_to};

/// Everything that determines a graph besides the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphOptions {
    /// The task that the graph computes.
    pub task: Task,
    /// Element types of weights and arithmetic.
    pub precision: Precision,
    /// Operators it may use.
    pub profile: Profile,
    /// Version of the standard operator set.
    pub opset: Opset,
    /// Outputs beyond the task's own.
    pub optional_outputs: BTreeSet<OptionalOutput>,
    /// How the products' weights are stored.
    pub weights: WeightPlan,
    /// How a native graph stores its key/value cache; other graphs have caches of their activations' type.
    pub kv_cache: CacheFormat,
}

impl GraphOptions {
    /// Float32 in the portable profile at the default operator set, without optional outputs.
    pub fn for_task(task: Task) -> Self {
        GraphOptions {
            task,
            precision: Precision::F32,
            profile: Profile::Portable,
            opset: Opset::default(),
            optional_outputs: BTreeSet::new(),
            weights: WeightPlan::default(),
            kv_cache: CacheFormat::F32,
        }
    }

    /// The format of the cache that the operator `Attention` updates; `None` for graphs without it.
    pub fn attention_cache(&self) -> Option<CacheFormat> {
        (self.profile == Profile::Native && self.task.has_cache()).then_some(self.kv_cache)
    }
}
