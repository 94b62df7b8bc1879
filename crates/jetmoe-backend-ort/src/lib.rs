//! ONNX Runtime as a backend, by its shared library: on the CPU, or with its execution providers on other devices.
//!
//! [`OrtBackend`] is the backend; [`OnnxRuntimeLibrary`] searches for libonnxruntime and opens it. No public item names a
//! type of `ort`.

mod append_session;
mod binding;
mod bound_cache;
mod cache_memory;
mod custom_ops;
mod device_memory;
mod graph;
mod library;
mod pages;
mod probe;
mod providers;
mod turns;

use std::sync::Arc;

use jetmoe_artifact::{GraphRecord, Profile, WeightFormat};
use jetmoe_backend::{
    Backend, Device, GraphSource, LoadOptions, LoadedGraph, MemoryShortage, Result, Support, estimate_memory,
};

pub use self::library::{
    LIBRARY_PATH_VARIABLE, LibraryCandidate, LibraryOrigin, LibraryStatus, OnnxRuntimeLibrary, cache_folder,
};
pub use self::probe::try_device;

use self::graph::OrtGraph;

/// The backend's name.
const NAME: &str = "ort";

/// ONNX Runtime.
#[derive(Debug, Clone, Copy)]
pub struct OrtBackend;

impl Backend for OrtBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has_device(&self, _device: &Device) -> bool {
        true
    }

    fn supports(&self, graph: &GraphRecord, options: &LoadOptions) -> Support {
        if !options.device.runs(graph.precision, graph.profile) {
            let reason = format!("the device {} has no operators for it", options.device);
            return Support::No { reason };
        }
        Support::by_profile(preferred_profiles(&options.device), graph, options)
    }

    fn rounds_activations(&self, graph: &GraphRecord, options: &LoadOptions) -> bool {
        graph.profile != Profile::Portable || options.int8_activations
    }

    fn estimate_memory(&self, graph: &GraphRecord, options: &LoadOptions) -> u64 {
        estimate_memory(graph, |format| memory_per_byte(format, graph.profile, options.low_memory))
    }

    fn device_shortage(&self, graph: &GraphRecord, device: &Device) -> Option<MemoryShortage> {
        device_memory::shortage(graph, device)
    }

    fn load(&self, source: &GraphSource<'_>, options: &LoadOptions) -> Result<Arc<dyn LoadedGraph>> {
        Ok(Arc::new(OrtGraph::load(source, options)?))
    }
}

/// Profiles in order of preference. TensorRT builds engines of standard operators only.
fn preferred_profiles(device: &Device) -> &'static [Profile] {
    match device {
        Device::Cuda(_) => &[Profile::Gpu, Profile::OnnxRuntime, Profile::Portable],
        Device::TensorRt(_) => &[Profile::Portable, Profile::Gpu, Profile::OnnxRuntime],
        _ => &[Profile::Native, Profile::OnnxRuntime, Profile::Portable, Profile::Gpu],
    }
}

/// Memory per byte of weights in the data file. `docs/memory.md` has the measurements.
fn memory_per_byte(format: WeightFormat, profile: Profile, low_memory: bool) -> f64 {
    match (format.bits(), profile) {
        // copied into the layout of the products
        (32, _) => 1.05,
        // the custom operators read the mapped file; the measured memory is less than that of every process
        (_, Profile::Native) => 0.0,
        // converted to float32 once, or in each step with low_memory
        (16, _) if low_memory => 0.1,
        (16, _) => 2.35,
        // a packed copy with sums per group; DequantizeLinear is rewritten first
        (_, Profile::OnnxRuntime | Profile::Gpu) => 1.25,
        (_, Profile::Portable) => 1.6,
    }
}
