use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jetmoe_artifact::{Artifact, GraphRecord, Precision, Profile, Task};
use jetmoe_checkpoint::{GenerationConfig, ModelConfig};
use jetmoe_text::Tokenizer;

use crate::engine::LoadedGraph;
use crate::memory::available_memory;
use crate::{Device, Error, Provider, Result, Session};

/// A runtime this crate can load artifacts into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// ONNX Runtime, by its shared library.
    Ort,
    /// tract, compiled in.
    Tract,
}

impl Runtime {
    /// Every runtime, built in or not.
    pub const ALL: &'static [Runtime] = &[Runtime::Ort, Runtime::Tract];

    /// Whether this build has it.
    pub fn is_built_in(self) -> bool {
        match self {
            Runtime::Ort => cfg!(feature = "ort"),
            Runtime::Tract => cfg!(feature = "tract"),
        }
    }

    /// Whether this runtime can run graphs of a precision and a profile at all: tract knows no bfloat16, which only our own
    /// operators read for it.
    pub fn runs(self, precision: Precision, profile: Profile) -> bool {
        let knows = self == Runtime::Ort || precision != Precision::Bf16 || profile == Profile::Native;
        knows && profile.has(precision) && self.profiles().contains(&profile)
    }

    /// The profiles that this runtime can run, the one that suits it best first.
    pub fn profiles(self) -> &'static [Profile] {
        match self {
            Runtime::Ort => &[Profile::Native, Profile::OnnxRuntime, Profile::Portable],
            Runtime::Tract => &[Profile::Native, Profile::Portable],
        }
    }

    /// Whether this runtime can run a graph, by what it is written in.
    pub fn can_run(self, graph: &GraphRecord) -> bool {
        self.runs(graph.precision, graph.profile)
    }

    /// Version of a runtime that is compiled in. ONNX Runtime's is that of the library that is found.
    pub fn built_in_version(self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "tract")]
            Runtime::Tract => Some(crate::engine::tract::VERSION),
            _ => None,
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::Ort => "ort",
            Runtime::Tract => "tract",
        })
    }
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "ort" => Ok(Runtime::Ort),
            "tract" => Ok(Runtime::Tract),
            other => Err(format!("unknown runtime {other:?}; known: ort, tract")),
        }
    }
}

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Which runtime. `None`, the default, takes ONNX Runtime, or tract where no libonnxruntime is found.
    pub runtime: Option<Runtime>,
    /// Where to compute; the CPU by default. Every other device is ONNX Runtime's; [`Device::Auto`] takes what can be had.
    pub device: Device,
    /// Which of the artifact's graphs, by precision. `None`, the default, takes the most exact one that the runtime can
    /// run, in the order of [`Precision::ALL`].
    pub precision: Option<Precision>,
    /// Which of the artifact's graphs, by profile. `None`, the default, takes the first that the artifact has in the
    /// order of [`Runtime::profiles`].
    pub profile: Option<Profile>,
    /// Threads that ONNX Runtime computes one operator with, at least 1; `None`, the default, is one per physical
    /// core. tract shares its products among as many.
    pub threads: Option<usize>,
    /// Whether ONNX Runtime may round what it multiplies with quantized weights to 8 bits, group by group. True, the
    /// default, is faster; perplexity does not show it. tract always multiplies in float32.
    pub int8_activations: bool,
    /// Whether to keep 16-bit weights in the mapped file and have ONNX Runtime convert them again in each step: they then
    /// take hardly any memory, where they take more than twice their size, and a step takes about 20 times as long.
    pub low_memory: bool,
    /// Tokens of a sequence, cached and new, that a cache which is updated in place has room for from its beginning, and
    /// the most that a session takes. `None`, the default, begins with what the prompt needs and makes more room as the
    /// sequence grows, up to the model's own limit.
    pub max_sequence_length: Option<usize>,
    /// Whether a graph that will not fit in memory is refused before it is loaded, which is the default. What it takes on
    /// another device than the CPU is not foretold.
    pub check_memory: bool,
    /// The libonnxruntime to load. `None`, the default, takes the one that
    /// [`OnnxRuntimeLibrary::find`](crate::OnnxRuntimeLibrary::find) finds. Any but the first of a process is refused.
    pub onnxruntime_library: Option<PathBuf>,
    /// A file for what the runtime does when, in Chromium's trace format, which Perfetto reads: of ONNX Runtime every
    /// operator, of tract every step and what lies between. [`Model::finish_trace`] writes it. `None`, the default, for none;
    /// keeping a trace costs time and memory.
    pub trace: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            runtime: None,
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

/// A model in a runtime, with everything that belongs to it. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct Model {
    graph: Arc<dyn LoadedGraph>,
    config: ModelConfig,
    task: Task,
    tokenizer: Option<Arc<Tokenizer>>,
    generation_config: GenerationConfig,
}

impl Model {
    /// Loads a graph of an artifact.
    ///
    /// # Errors
    /// An artifact that cannot be used, a runtime that this build or machine does not have, or what the runtime
    /// refuses.
    pub fn load(folder: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Self::load_artifact(&Artifact::open(folder)?, options)
    }

    /// Loads a graph of an opened artifact.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_artifact(artifact: &Artifact, options: &LoadOptions) -> Result<Self> {
        let (record, graph) = load_graph(artifact, options)?;
        let tokenizer = Tokenizer::open(artifact.folder())?;
        let generation_config = artifact.generation_config()?;
        let mut config = artifact.config().clone();
        if let Some(limit) = options.max_sequence_length {
            config.max_position_embeddings = config.max_position_embeddings.min(limit);
        }
        Ok(Self::from_graph(graph, config, record.task, tokenizer, generation_config))
    }

    /// Wraps a graph that some other backend loaded.
    pub fn from_graph(
        graph: Arc<dyn LoadedGraph>,
        config: ModelConfig,
        task: Task,
        tokenizer: Option<Tokenizer>,
        generation_config: GenerationConfig,
    ) -> Self {
        Model { graph, config, task, tokenizer: tokenizer.map(Arc::new), generation_config }
    }

    /// Begins a session with an empty cache.
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn session(&self) -> Result<Session> {
        Ok(Session::new(self.graph.start()?, self.config.clone(), self.task.has_cache()))
    }

    /// Writes the trace of [`LoadOptions::trace`], and ends it where the runtime writes its own. Without that option, and of
    /// a backend outside of this crate, there is none.
    ///
    /// # Errors
    /// [`Error::Trace`], or what the runtime refuses.
    pub fn finish_trace(&self) -> Result<()> {
        self.graph.finish_trace()
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the model computes.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The runtime and its version, as in `ort 1.32.0`, with the device unless it is the CPU, as in
    /// `ort 1.24.1 (openvino CPU)`.
    pub fn runtime(&self) -> String {
        self.graph.runtime()
    }

    /// The loaded graph.
    pub fn graph(&self) -> &dyn LoadedGraph {
        &*self.graph
    }

    /// The tokenizer, where the artifact has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }

    /// Defaults for generation that came with the checkpoint.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation_config
    }

    /// Whether both are clones of one model.
    pub(crate) fn shares_graph_with(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.graph, &other.graph)
    }

    /// Refuses a model of another task.
    pub(crate) fn require_task(&self, needed: Task) -> Result<()> {
        if self.task == needed { Ok(()) } else { Err(Error::WrongTask { found: self.task, needed }) }
    }

    pub(crate) fn require_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer().ok_or(Error::NoTokenizer)
    }
}

impl LoadOptions {
    /// The graph of an artifact that these options take for a runtime.
    ///
    /// # Errors
    /// A graph that the artifact does not have, or that the runtime cannot run.
    pub fn choose_graph<'a>(&self, artifact: &'a Artifact, runtime: Runtime) -> Result<&'a GraphRecord> {
        // what is not there is refused as such, whatever the runtime could run
        let wanted = artifact.graph(self.precision, self.profile)?;
        let is_wanted = |graph: &&GraphRecord| {
            self.precision.is_none_or(|precision| precision == graph.precision)
                && self.profile.is_none_or(|profile| profile == graph.profile)
        };
        let order = |graph: &&GraphRecord| {
            // the other profiles' operators have the rounding of activations built in
            let rounds = !self.int8_activations
                && graph.precision.format().is_quantized()
                && graph.profile != Profile::Portable;
            // of the operators of the other profiles OpenVINO takes only some
            let foreign =
                self.device.provider() == Some(Provider::OpenVino) && graph.profile != Profile::Portable;
            // the custom operators gain nothing where only the generic kernels are available
            let slow = graph.profile == Profile::Native
                && jetmoe_kernels::Isa::best() == jetmoe_kernels::Isa::Generic;
            let profile = runtime.profiles().iter().position(|profile| *profile == graph.profile);
            (graph.precision, rounds, foreign || slow, profile)
        };
        let graphs = artifact.manifest().graphs.iter();
        let (refused, chosen): (Vec<_>, Vec<_>) = graphs
            .filter(|graph| runtime.can_run(graph))
            .filter(is_wanted)
            .partition(|graph| !self.device.runs(graph.precision, graph.profile));
        let (precision, profile) = (wanted.precision, wanted.profile);
        if let (Some(graph), []) = (refused.first(), chosen.as_slice()) {
            return Err(Error::DeviceCannotRun {
                device: self.device.to_string(),
                precision: graph.precision,
                profile: graph.profile,
            });
        }
        let chosen = chosen.into_iter().min_by_key(order);
        chosen.ok_or(Error::CannotRun { runtime, precision, profile })
    }
}

type Loaded<'a> = (&'a GraphRecord, Arc<dyn LoadedGraph>);

/// Loads into the runtime that was asked for; without one, ONNX Runtime where it can be had, else tract.
fn load_graph<'a>(artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    if options.max_sequence_length == Some(0) {
        let option = "max_sequence_length";
        return Err(Error::Option { option, found: "0".to_owned(), expected: "at least 1" });
    }
    if options.threads == Some(0) {
        return Err(Error::Option { option: "threads", found: "0".to_owned(), expected: "at least 1" });
    }
    options.device.check()?;
    match (options.runtime, &options.device) {
        (_, Device::Cpu) => load_on_cpu(artifact, options),
        (None | Some(Runtime::Ort), Device::Auto) => load_on_any(artifact, options),
        (Some(Runtime::Tract), Device::Auto) => {
            load_on_cpu(artifact, &LoadOptions { device: Device::Cpu, ..options.clone() })
        }
        (None | Some(Runtime::Ort), _) => load_into(Runtime::Ort, artifact, options),
        (Some(runtime), device) => Err(Error::DeviceOfOrt { runtime, device: device.to_string() }),
    }
}

/// Loads onto the first device of [`Device::auto_order`] that can be had, and says why the others were not taken.
fn load_on_any<'a>(artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    let mut passed_over = String::new();
    for device in Device::auto_order() {
        let name = device.to_string();
        let options = LoadOptions { device, ..options.clone() };
        if options.device == Device::Cpu {
            let loaded = load_on_cpu(artifact, &options)?;
            tracing::warn!("device auto takes {name}{passed_over}");
            return Ok(loaded);
        }
        match load_into(Runtime::Ort, artifact, &options) {
            Ok(loaded) => {
                tracing::warn!("device auto takes {name}{passed_over}");
                return Ok(loaded);
            }
            // what is wrong with the graph itself shows on the CPU again
            Err(error) => {
                let why = match error {
                    Error::Device { message, .. } => message,
                    other => other.to_string(),
                };
                passed_over.push_str(&format!("\n  not {name}: {}", why.lines().next().unwrap_or(&why)));
            }
        }
    }
    load_on_cpu(artifact, &LoadOptions { device: Device::Cpu, ..options.clone() })
}

fn load_on_cpu<'a>(artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    match options.runtime {
        Some(runtime) => load_into(runtime, artifact, options),
        None if !Runtime::Ort.is_built_in() && options.onnxruntime_library.is_none() => {
            load_into(Runtime::Tract, artifact, options)
        }
        None => match load_into(Runtime::Ort, artifact, options) {
            // a library that somebody named and that cannot be used is no reason to take another runtime
            Err(error @ Error::LibraryNotFound { .. }) if Runtime::Tract.is_built_in() => {
                tracing::warn!("{error}\n  going on with tract");
                load_into(Runtime::Tract, artifact, options)
            }
            other => other,
        },
    }
}

fn load_into<'a>(runtime: Runtime, artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    if !runtime.is_built_in() {
        return Err(Error::NotBuiltIn { runtime });
    }
    let record = options.choose_graph(artifact, runtime)?;
    // other devices bring memory of their own, or hold the weights in a form of their own
    if options.check_memory && options.device == Device::Cpu {
        let needed = options.memory_of(record, runtime);
        if let Some(available) = available_memory().filter(|available| *available < needed) {
            let path = artifact.path(&record.graph);
            return Err(Error::Memory { runtime, graph: path, needed, available });
        }
    }
    if let Some(path) = &options.trace {
        // a file that cannot be written is refused before anything is loaded for it
        File::create(path).map_err(|source| Error::Trace { path: path.clone(), source })?;
    }
    let graph = match runtime {
        Runtime::Ort => load_ort(artifact, record, options),
        Runtime::Tract => load_tract(artifact, record, options),
    }?;
    Ok((record, graph))
}

#[cfg(feature = "ort")]
fn load_ort(
    artifact: &Artifact,
    record: &GraphRecord,
    options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    Ok(Arc::new(crate::engine::ort::OrtGraph::load(artifact, record, options)?))
}

#[cfg(not(feature = "ort"))]
fn load_ort(
    _artifact: &Artifact,
    _record: &GraphRecord,
    _options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    Err(Error::NotBuiltIn { runtime: Runtime::Ort })
}

#[cfg(feature = "tract")]
fn load_tract(
    artifact: &Artifact,
    record: &GraphRecord,
    options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    Ok(Arc::new(crate::engine::tract::TractGraph::load(artifact, record, options)?))
}

#[cfg(not(feature = "tract"))]
fn load_tract(
    _artifact: &Artifact,
    _record: &GraphRecord,
    _options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    Err(Error::NotBuiltIn { runtime: Runtime::Tract })
}
