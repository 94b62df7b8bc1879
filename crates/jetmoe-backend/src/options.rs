//! How a model is loaded.

use std::path::PathBuf;

use jetmoe_artifact::{Precision, Profile};

use crate::{Backend, Device};

/// How a model is loaded. Which backend and which graph is `jetmoe-rt`'s choice; a backend reads the other options.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Which backend. `None`, the default, takes the first that is usable on this machine, in the order of
    /// `jetmoe_rt::backends`.
    pub backend: Option<&'static dyn Backend>,
    /// Where to compute; the CPU by default. [`Device::Auto`] takes the first device that is usable.
    pub device: Device,
    /// Which of the artifact's graphs, by precision. `None`, the default, takes the most exact one that the backend
    /// supports, in the order of [`Precision::ALL`].
    pub precision: Option<Precision>,
    /// Which of the artifact's graphs, by profile. `None`, the default, takes the one that the backend prefers.
    pub profile: Option<Profile>,
    /// Threads that compute one operator, at least 1; `None`, the default, is one per physical core.
    pub threads: Option<usize>,
    /// Whether a backend may round what it multiplies with quantized weights to 8 bits, group by group. True, the
    /// default, is faster; perplexity does not show it. tract multiplies in float32 either way.
    pub int8_activations: bool,
    /// Whether to keep 16-bit weights in the mapped file and have ONNX Runtime convert them again in each step: they then
    /// take hardly any memory, where they take more than twice their size, and a step takes about 20 times as long.
    pub low_memory: bool,
    /// The longest sequence, cached and new tokens, that a session takes. A cache that is updated in place has this
    /// capacity from its beginning. `None`, the default, begins with what the prompt needs and grows with the sequence,
    /// up to the model's own limit.
    pub max_sequence_length: Option<usize>,
    /// Whether a graph that will not fit in memory is refused before it is loaded, which is the default. What it takes on
    /// another device than the CPU is not estimated.
    pub check_memory: bool,
    /// The libonnxruntime to load. `None`, the default, searches for one. Any but the first of a process is refused.
    pub onnxruntime_library: Option<PathBuf>,
    /// A file for a trace in Chromium's format, which Perfetto reads: of ONNX Runtime every operator, of tract every step
    /// and the time between steps. `None`, the default, for none; a trace costs time and memory.
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
