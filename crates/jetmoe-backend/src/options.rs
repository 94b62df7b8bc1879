//! Options for loading a model.

use std::path::PathBuf;

use jetmoe_artifact::{Precision, Profile};

use crate::{Backend, Device};

/// Options for loading a model. `jetmoe-rt` selects backend and graph; a backend reads the other options.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The backend. `None`, the default, selects the first usable one on this machine, in the order of
    /// `jetmoe_rt::backends`.
    pub backend: Option<&'static dyn Backend>,
    /// The device; the CPU by default. [`Device::Auto`] selects the first usable device.
    pub device: Device,
    /// Precision of the graph. `None`, the default, selects the most exact one that the backend supports, in the order of
    /// [`Precision::ALL`].
    pub precision: Option<Precision>,
    /// Profile of the graph. `None`, the default, selects the one that the backend prefers.
    pub profile: Option<Profile>,
    /// Threads that compute one operator, at least 1; `None`, the default, is one per physical core.
    pub threads: Option<usize>,
    /// Whether a backend may quantize activations of products with quantized weights to 8 bits, group by group. True, the
    /// default, is faster and does not change perplexity measurably. tract multiplies in float32 either way.
    pub int8_activations: bool,
    /// Whether ONNX Runtime keeps 16-bit weights in the mapped file and converts them in each step. They then take hardly
    /// any memory instead of more than twice their size, and a step takes about 20 times as long. False by default.
    pub low_memory: bool,
    /// The longest sequence, cached and new tokens, that a session takes. A cache that is updated in place has this
    /// capacity from its beginning. `None`, the default, begins with what the prompt needs and grows with the sequence,
    /// up to the model's own limit.
    pub max_sequence_length: Option<usize>,
    /// Whether to reject a graph that does not fit in memory before it is loaded; true by default. Memory is estimated for
    /// the CPU only.
    pub check_memory: bool,
    /// The libonnxruntime to load. `None`, the default, searches for one. A second library in
    /// one process is rejected.
    pub onnxruntime_library: Option<PathBuf>,
    /// A file for a trace in Chromium's format, which Perfetto reads: every operator of ONNX Runtime; every step of tract
    /// and the time between steps. `None`, the default, for no trace; tracing costs time and memory.
    pub trace: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            backend: None,
            device: Device::Cpu,
            precision: None,
            profile: None,
            threads: None,
            int8_activations: true,
            low_memory: false,
            max_sequence_length: None,
            check_memory: true,
            onnxruntime_library: None,
            trace: None,
        }
    }
}
