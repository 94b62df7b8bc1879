//! Options for loading a model.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jetmoe_artifact::{ObservedValue, Precision, Profile};
use sysinfo::System;

use crate::{Backend, Device};

/// Options for loading a model. `jetmoe-rt` selects backend and graph; a backend reads the other options.
///
/// ```
/// use jetmoe_artifact::{Precision, Profile};
/// use jetmoe_backend::LoadOptions;
///
/// let options = LoadOptions::default().with_precision(Precision::Q4).with_profile(Profile::Native).with_threads(8);
/// assert_eq!(options.threads, Some(8));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    /// Threads that compute one operator, at least 1; more than 1024 are 1024. `None`, the default, is one per physical core, or fewer where this
    /// process may use fewer processors.
    pub threads: Option<usize>,
    /// Whether a backend may quantize activations of products with quantized weights to 8 bits, group by group. True, the
    /// default, is faster and does not change perplexity measurably. tract multiplies in float32 either way.
    pub int8_activations: bool,
    /// Whether a token of a native graph has the same bits alone, beside others, and in chunks of any size. False, the default, lets
    /// AMX multiply bfloat16 tiles where an expert has many rows: long prompts are read faster, and how a prompt is divided, or what
    /// is beside it, moves its logits by what rounding moves them. Other processors compute the same either way.
    pub batch_invariant: bool,
    /// Whether ONNX Runtime keeps 16-bit weights in the mapped file and converts them in each step. They then take hardly
    /// any memory instead of more than twice their size, and a step takes about 20 times as long. False by default.
    pub low_memory: bool,
    /// The longest sequence, cached and new tokens, that a session takes. A cache that is updated in place has this
    /// capacity from its beginning. `None`, the default, begins with what the prompt needs and grows with the sequence,
    /// up to the model's own limit.
    pub max_sequence_length: Option<usize>,
    /// Whether ONNX Runtime copies parts of the cache by graphs, as it does on a GPU, where no part of the cache passes through the
    /// host, on the CPU too. That is slower there, and tests what a GPU is needed for otherwise. False by default.
    pub cache_by_graphs: bool,
    /// Whether to reject a graph that does not fit in memory before it is loaded; true by default: in memory of
    /// the machine, or of an NVIDIA GPU where its driver or the device's option says how much is free.
    pub check_memory: bool,
    /// Whether to load a graph without the check that it is one that the exporter writes; false by default. Without the
    /// check, a hostile graph can take any time and memory, and end the process.
    pub trust_graph: bool,
    /// Whether to read the weights and compare their SHA-256 digest with the manifest before they are used; false by default.
    /// Detects every change of them that the manifest does not have. Takes the time of one SHA-256 stream over the data file.
    pub verify_digests: bool,
    /// A folder for a copy of the weights that no other user can change, and that stays as it is when the artifact's files are
    /// overwritten or truncated, which otherwise changes results or ends the process with SIGBUS. Its digest is compared as by
    /// [`LoadOptions::verify_digests`]. It takes the space of the data file in the folder, or memory if that is a tmpfs, until
    /// the model is dropped; its name is removed after the load. `None`, the default, maps the artifact's file. Unix only.
    pub private_copy: Option<PathBuf>,
    /// The libonnxruntime to load. `None`, the default, searches for one. A second library in
    /// one process is rejected.
    pub onnxruntime_library: Option<PathBuf>,
    /// A file for a trace in Chromium's format, which Perfetto reads: every operator of ONNX Runtime; every step of tract
    /// and the time between steps. `None`, the default, for no trace; tracing costs time and memory.
    pub trace: Option<PathBuf>,
    /// Values of the graph that a copy of it returns, in memory, as further outputs of every step. Empty, the default, loads the
    /// graph as it is. `jetmoe-observe` reads them.
    pub observed: BTreeSet<ObservedValue>,
}

/// More than any backend uses; the libraries underneath take a larger number modulo 2³², or start so many threads.
const MAX_THREADS: usize = 1024;

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            backend: None,
            device: Device::Cpu,
            precision: None,
            profile: None,
            threads: None,
            int8_activations: true,
            batch_invariant: false,
            low_memory: false,
            max_sequence_length: None,
            cache_by_graphs: false,
            check_memory: true,
            trust_graph: false,
            verify_digests: false,
            private_copy: None,
            onnxruntime_library: None,
            trace: None,
            observed: BTreeSet::new(),
        }
    }
}

impl LoadOptions {
    /// The threads that a backend computes with: [`LoadOptions::threads`]; without it as many as this process may use, by its
    /// affinity and by the quota of its control group, where that is fewer than the machine's physical cores. `None` for the
    /// backend's own default, one per physical core.
    pub fn thread_limit(&self) -> Option<usize> {
        self.threads.map(|threads| threads.min(MAX_THREADS)).or_else(|| {
            let allowed = std::thread::available_parallelism().ok()?.get();
            let cores = System::physical_core_count().ok()?;
            (allowed < cores).then_some(allowed)
        })
    }

    /// Sets [`LoadOptions::backend`].
    #[must_use]
    pub fn with_backend(mut self, backend: impl Into<Option<&'static dyn Backend>>) -> Self {
        self.backend = backend.into();
        self
    }

    /// Sets [`LoadOptions::device`].
    #[must_use]
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Sets [`LoadOptions::precision`].
    #[must_use]
    pub fn with_precision(mut self, precision: impl Into<Option<Precision>>) -> Self {
        self.precision = precision.into();
        self
    }

    /// Sets [`LoadOptions::profile`].
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<Option<Profile>>) -> Self {
        self.profile = profile.into();
        self
    }

    /// Sets [`LoadOptions::threads`].
    #[must_use]
    pub fn with_threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.threads = threads.into();
        self
    }

    /// Sets [`LoadOptions::int8_activations`].
    #[must_use]
    pub fn with_int8_activations(mut self, int8_activations: bool) -> Self {
        self.int8_activations = int8_activations;
        self
    }

    /// Sets [`LoadOptions::batch_invariant`].
    #[must_use]
    pub fn with_batch_invariant(mut self, batch_invariant: bool) -> Self {
        self.batch_invariant = batch_invariant;
        self
    }

    /// Sets [`LoadOptions::low_memory`].
    #[must_use]
    pub fn with_low_memory(mut self, low_memory: bool) -> Self {
        self.low_memory = low_memory;
        self
    }

    /// Sets [`LoadOptions::max_sequence_length`].
    #[must_use]
    pub fn with_max_sequence_length(mut self, max_sequence_length: impl Into<Option<usize>>) -> Self {
        self.max_sequence_length = max_sequence_length.into();
        self
    }

    /// Sets [`LoadOptions::cache_by_graphs`].
    #[must_use]
    pub fn with_cache_by_graphs(mut self, cache_by_graphs: bool) -> Self {
        self.cache_by_graphs = cache_by_graphs;
        self
    }

    /// Sets [`LoadOptions::check_memory`].
    #[must_use]
    pub fn with_check_memory(mut self, check_memory: bool) -> Self {
        self.check_memory = check_memory;
        self
    }

    /// Sets [`LoadOptions::trust_graph`].
    #[must_use]
    pub fn with_trust_graph(mut self, trust_graph: bool) -> Self {
        self.trust_graph = trust_graph;
        self
    }

    /// Sets [`LoadOptions::verify_digests`].
    #[must_use]
    pub fn with_verify_digests(mut self, verify_digests: bool) -> Self {
        self.verify_digests = verify_digests;
        self
    }

    /// Sets [`LoadOptions::private_copy`].
    #[must_use]
    pub fn with_private_copy(mut self, folder: impl Into<PathBuf>) -> Self {
        self.private_copy = Some(folder.into());
        self
    }

    /// Sets [`LoadOptions::onnxruntime_library`].
    #[must_use]
    pub fn with_onnxruntime_library(mut self, onnxruntime_library: impl Into<PathBuf>) -> Self {
        self.onnxruntime_library = Some(onnxruntime_library.into());
        self
    }

    /// Sets [`LoadOptions::trace`].
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<PathBuf>) -> Self {
        self.trace = Some(trace.into());
        self
    }

    /// Sets [`LoadOptions::observed`].
    #[must_use]
    pub fn with_observed(mut self, observed: impl IntoIterator<Item = ObservedValue>) -> Self {
        self.observed = observed.into_iter().collect();
        self
    }
}
