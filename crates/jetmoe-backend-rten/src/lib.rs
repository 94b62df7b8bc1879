//! rten as a backend: pure Rust, on any CPU.
//!
//! [`RtenBackend`] is the backend. It runs portable graphs of every precision; `rewrite` says how those that rten does not
//! take as they are become graphs that it does. No public item names a type of rten.

mod error;
mod graph;
mod quantized;
mod rewrite;

use std::sync::Arc;

use jetmoe_artifact::{GraphRecord, Profile, WeightFormat};
use jetmoe_backend::{Backend, GraphSource, LoadOptions, LoadedGraph, Result, Support, estimate_memory};

use self::graph::RtenGraph;

/// The backend's name.
const NAME: &str = "rten";

/// Version of the crate, which has no constant for it; a test compares it with `Cargo.lock`.
const VERSION: &str = "0.27.0";

/// rten.
#[derive(Debug, Clone, Copy)]
pub struct RtenBackend;

impl Backend for RtenBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> Option<&'static str> {
        Some(VERSION)
    }

    fn supports(&self, graph: &GraphRecord, options: &LoadOptions) -> Support {
        Support::by_profile(&[Profile::Portable], graph, options)
    }

    fn rounds_activations(&self, _graph: &GraphRecord, _options: &LoadOptions) -> bool {
        false
    }

    fn estimate_memory(&self, graph: &GraphRecord, _options: &LoadOptions) -> u64 {
        estimate_memory(graph, memory_per_byte)
    }

    fn load(&self, source: &GraphSource<'_>, options: &LoadOptions) -> Result<Arc<dyn LoadedGraph>> {
        Ok(Arc::new(RtenGraph::load(source, options)?))
    }
}

/// Memory per byte of weights in the data file.
fn memory_per_byte(format: WeightFormat) -> f64 {
    match format.bits() {
        // packed as `MatMulNBits` takes them
        4 => 1.1,
        // converted to float32
        8 => 4.0,
        16 => 2.0,
        // read where the file is mapped
        _ => 0.0,
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
                .contains("name = \"rten\"")
                .then(|| package.lines().find_map(|l| l.strip_prefix("version = ")))?
        });
        assert_eq!(version, Some(format!("\"{VERSION}\"").as_str()));
    }
}
