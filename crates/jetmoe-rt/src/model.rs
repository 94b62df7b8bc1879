use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jetmoe_artifact::{Artifact, Precision, Profile, Task};
use jetmoe_checkpoint::{GenerationConfig, ModelConfig, Tokenizer};

use crate::engine::LoadedGraph;
use crate::{Error, Result, Session};

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
    /// Which of the artifact's graphs, by precision.
    pub precision: Precision,
    /// Which of the artifact's graphs, by profile.
    pub profile: Profile,
    /// Threads that ONNX Runtime computes one operator with, at least 1; `None`, the default, is one per physical
    /// core. tract computes in the calling thread, whatever this says.
    pub threads: Option<usize>,
    /// The libonnxruntime to load. `None`, the default, takes the one that
    /// [`OnnxRuntimeLibrary::find`](crate::OnnxRuntimeLibrary::find) finds. Any but the first of a process is refused.
    pub onnxruntime_library: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            runtime: None,
            precision: Precision::F32,
            profile: Profile::Portable,
            threads: None,
            onnxruntime_library: None,
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
        let record = artifact.graph(options.precision, options.profile)?;
        let graph = load_graph(artifact, record, options)?;
        let tokenizer = artifact.tokenizer()?;
        let generation_config = artifact.generation_config()?;
        Ok(Self::from_graph(graph, artifact.config().clone(), record.task, tokenizer, generation_config))
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

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the model computes.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The runtime and its version, as in `ort 1.32.0`.
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

    /// Refuses a model of another task.
    pub(crate) fn require_task(&self, needed: Task) -> Result<()> {
        if self.task == needed { Ok(()) } else { Err(Error::WrongTask { found: self.task, needed }) }
    }

    pub(crate) fn require_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer().ok_or(Error::NoTokenizer)
    }
}

/// Loads into the runtime that was asked for; without one, ONNX Runtime where it can be had, else tract.
fn load_graph(
    artifact: &Artifact,
    record: &jetmoe_artifact::GraphRecord,
    options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    if options.threads == Some(0) {
        return Err(Error::Option { option: "threads", found: "0".to_owned(), expected: "at least 1" });
    }
    match options.runtime {
        Some(Runtime::Ort) => load_ort(artifact, record, options),
        Some(Runtime::Tract) => load_tract(artifact, record),
        None if !Runtime::Ort.is_built_in() && options.onnxruntime_library.is_none() => {
            load_tract(artifact, record)
        }
        None => match load_ort(artifact, record, options) {
            // a library that somebody named and that cannot be used is no reason to take another runtime
            Err(error @ Error::LibraryNotFound { .. }) if Runtime::Tract.is_built_in() => {
                tracing::warn!("{error}\n  going on with tract");
                load_tract(artifact, record)
            }
            other => other,
        },
    }
}

#[cfg(feature = "ort")]
fn load_ort(
    artifact: &Artifact,
    record: &jetmoe_artifact::GraphRecord,
    options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    Ok(Arc::new(crate::engine::ort::OrtGraph::load(artifact, record, options)?))
}

#[cfg(not(feature = "ort"))]
fn load_ort(
    _artifact: &Artifact,
    _record: &jetmoe_artifact::GraphRecord,
    _options: &LoadOptions,
) -> Result<Arc<dyn LoadedGraph>> {
    Err(Error::NotBuiltIn { runtime: Runtime::Ort })
}

#[cfg(feature = "tract")]
fn load_tract(artifact: &Artifact, record: &jetmoe_artifact::GraphRecord) -> Result<Arc<dyn LoadedGraph>> {
    Ok(Arc::new(crate::engine::tract::TractGraph::load(artifact, record)?))
}

#[cfg(not(feature = "tract"))]
fn load_tract(_artifact: &Artifact, _record: &jetmoe_artifact::GraphRecord) -> Result<Arc<dyn LoadedGraph>> {
    Err(Error::NotBuiltIn { runtime: Runtime::Tract })
}
