//! tract as a backend: pure Rust, on any CPU.
//!
//! [`TractBackend`] is the backend. No public item names a type of tract.

mod attention;
mod cached_attention;
mod custom_ops;
mod data_file;
mod graph;
mod logits_to_keep;
mod operator;
mod product;
mod quantized;
mod shared_cache;
mod threads;

use std::sync::Arc;

use jetmoe_artifact::{GraphRecord, Precision, Profile, WeightFormat};
use jetmoe_backend::{Backend, GraphSource, LoadOptions, LoadedGraph, Result, Support, estimate_memory};

use self::graph::TractGraph;

/// The backend's name.
const NAME: &str = "tract";

/// Version of the crate, which has no constant for it; a test compares it with `Cargo.lock`.
const VERSION: &str = "0.23.9";

/// tract.
#[derive(Debug, Clone, Copy)]
pub struct TractBackend;

impl Backend for TractBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> Option<&'static str> {
        Some(VERSION)
    }

    fn supports(&self, graph: &GraphRecord, options: &LoadOptions) -> Support {
        // the custom operators of native graphs support bfloat16
        if graph.precision == Precision::Bf16 && graph.profile != Profile::Native {
            return Support::No { reason: "it has no bfloat16, except in native graphs".to_owned() };
        }
        Support::by_profile(&[Profile::Native, Profile::Portable], graph, options)
    }

    fn rounds_activations(&self, graph: &GraphRecord, _options: &LoadOptions) -> bool {
        graph.profile == Profile::Native
    }

    fn estimate_memory(&self, graph: &GraphRecord, _options: &LoadOptions) -> u64 {
        estimate_memory(graph, |format| memory_per_byte(format, graph.profile))
    }

    fn load(&self, source: &GraphSource<'_>, options: &LoadOptions) -> Result<Arc<dyn LoadedGraph>> {
        Ok(Arc::new(TractGraph::load(source, options)?))
    }
}

/// Memory per byte of weights in the data file. `docs/memory.md` has the measurements.
fn memory_per_byte(format: WeightFormat, profile: Profile) -> f64 {
    match format.bits() {
        32 => 1.25,
        // the custom operators read the mapped file; the measured memory is less than that of every process
        _ if profile == Profile::Native => 0.0,
        16 => 1.9,
        _ => 1.15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_crate() {
        let lock = include_str!("../../../Cargo.lock");
        let version = lock.split("[[package]]").find_map(|package| {
            package
                .contains("name = \"tract-onnx\"")
                .then(|| package.lines().find_map(|l| l.strip_prefix("version = ")))?
        });
        assert_eq!(version, Some(format!("\"{VERSION}\"").as_str()));
    }
}
