//! A model: a loaded graph with configuration, task, tokenizer and defaults for generation.

use std::path::Path;
use std::sync::Arc;

use jetmoe_artifact::{Artifact, GraphRecord, Precision, Profile, Task};
use jetmoe_backend::{Backend, Error as BackendError, LoadOptions, LoadedGraph};
use jetmoe_checkpoint::{GenerationConfig, ModelConfig};
use jetmoe_text::Tokenizer;

use crate::{Error, Result, Session, fallback};

/// A model in a backend, with everything that belongs to it. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct Model {
    graph: Arc<dyn LoadedGraph>,
    config: ModelConfig,
    task: Task,
    /// Of a graph of an artifact.
    kind: Option<(Precision, Profile)>,
    tokenizer: Option<Arc<Tokenizer>>,
    generation_config: GenerationConfig,
    max_text_bytes: Option<usize>,
}

/// Bytes of a text for each position. The longest tokens of known tokenizers, white space and rules of hyphens, have up to 128
/// bytes; a text of one kind of them only is not expected.
const BYTES_PER_POSITION: usize = 64;

/// Bytes of a text that is encoded however few positions there are, so that it can be cut by tokens.
const MIN_TEXT_BYTES: usize = 1 << 20;

impl Model {
    /// Loads a graph of an artifact.
    ///
    /// # Errors
    /// An invalid artifact, a backend that this build or machine does not have, or an error of the backend.
    pub fn load(folder: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Self::load_artifact(&Artifact::open(folder)?, options)
    }

    /// Loads a graph of an opened artifact.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_artifact(artifact: &Artifact, options: &LoadOptions) -> Result<Self> {
        load_current(artifact, |artifact| {
            let (record, graph) = fallback::load(artifact, options)?;
            Self::of_artifact(artifact, record, graph, options)
        })
    }

    /// Loads a graph of an opened artifact into a backend that need not be one of [`backends`](crate::backends).
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_into(backend: &dyn Backend, artifact: &Artifact, options: &LoadOptions) -> Result<Self> {
        load_current(artifact, |artifact| {
            let (record, graph) = fallback::load_into(backend, artifact, options)?;
            Self::of_artifact(artifact, record, graph, options)
        })
    }

    fn of_artifact(
        artifact: &Artifact,
        record: &GraphRecord,
        graph: Arc<dyn LoadedGraph>,
        options: &LoadOptions,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::open(artifact.folder())?;
        let generation_config = artifact.generation_config(record.task)?;
        let mut config = artifact.config().clone();
        if let Some(limit) = options.max_sequence_length {
            config.max_position_embeddings = config.max_position_embeddings.min(limit);
        }
        let model = Self::from_graph(graph, config, record.task, tokenizer, generation_config);
        Ok(Model { kind: Some((record.precision, record.profile)), ..model })
    }

    /// Wraps a graph that is loaded already. End-of-sequence tokens are those of `generation_config`; without a file take
    /// [`GenerationConfig::from_model_config`].
    pub fn from_graph(
        graph: Arc<dyn LoadedGraph>,
        config: ModelConfig,
        task: Task,
        tokenizer: Option<Tokenizer>,
        generation_config: GenerationConfig,
    ) -> Self {
        Model {
            graph,
            config,
            task,
            kind: None,
            tokenizer: tokenizer.map(Arc::new),
            generation_config,
            max_text_bytes: None,
        }
    }

    /// Starts a session with an empty cache.
    ///
    /// # Errors
    /// An error of the backend.
    pub fn session(&self) -> Result<Session> {
        Ok(Session::new(self.graph.start()?, self.config.clone(), self.task.has_cache()))
    }

    /// Writes the trace of [`LoadOptions::trace`]. Does nothing without that option.
    ///
    /// # Errors
    /// A file that cannot be written, or an error of the backend.
    pub fn finish_trace(&self) -> Result<()> {
        Ok(self.graph.finish_trace()?)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The precision of the loaded graph; `None` for one that is not of an artifact ([`Model::from_graph`]).
    pub fn precision(&self) -> Option<Precision> {
        self.kind.map(|(precision, _)| precision)
    }

    /// The profile of the loaded graph; `None` for one that is not of an artifact ([`Model::from_graph`]).
    pub fn profile(&self) -> Option<Profile> {
        self.kind.map(|(_, profile)| profile)
    }

    /// The backend and its version, as in `ort 1.32.0`, with the device unless it is the CPU, as in
    /// `ort 1.24.1 (openvino CPU)`.
    pub fn backend(&self) -> String {
        self.graph.backend()
    }

    /// The loaded graph.
    pub fn graph(&self) -> &dyn LoadedGraph {
        &*self.graph
    }

    /// The tokenizer, if the artifact has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }

    /// Limits prompt and continuation to fewer positions than the configuration has: a prompt with more tokens is rejected, and a
    /// continuation that fills them ends with [`FinishReason::ContextFull`](crate::FinishReason). A larger number changes nothing.
    #[must_use]
    pub fn with_max_positions(mut self, positions: usize) -> Self {
        let limit = &mut self.config.max_position_embeddings;
        *limit = positions.min(*limit);
        self
    }

    /// Sets [`Model::max_text_bytes`]; `None` for the default.
    #[must_use]
    pub fn with_max_text_bytes(self, max_text_bytes: impl Into<Option<usize>>) -> Self {
        Model { max_text_bytes: max_text_bytes.into(), ..self }
    }

    /// The most bytes of a text that is encoded; a longer one is refused before it takes time and memory. By default 64 for each
    /// position, and at least 1 MiB. It holds for prompts, for conversations as the chat template renders them, for prompts with a
    /// continuation, and for texts and pairs to classify, also if they are cut.
    pub fn max_text_bytes(&self) -> usize {
        self.max_text_bytes.unwrap_or_else(|| Self::default_max_text_bytes(&self.config))
    }

    /// The default of [`Model::max_text_bytes`], for a caller that reads texts before it loads the model.
    pub fn default_max_text_bytes(config: &ModelConfig) -> usize {
        config.max_position_embeddings.saturating_mul(BYTES_PER_POSITION).max(MIN_TEXT_BYTES)
    }

    /// Rejects a text with more bytes than [`Model::max_text_bytes`].
    pub(crate) fn check_text_bytes(&self, index: usize, bytes: usize) -> Result<()> {
        let (limit, positions) = (self.max_text_bytes(), self.config.max_position_embeddings);
        if bytes > limit { Err(Error::TextTooLong { index, bytes, limit, positions }) } else { Ok(()) }
    }

    pub(crate) fn shared_tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// Settings for generation that came with the checkpoint, and the list of those that are not applied.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation_config
    }

    /// Whether both are clones of one model.
    pub(crate) fn shares_graph_with(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.graph, &other.graph)
    }

    /// Rejects a model of another task.
    pub(crate) fn require_task(&self, needed: Task) -> Result<()> {
        if self.task == needed { Ok(()) } else { Err(Error::WrongTask { found: self.task, needed }) }
    }

    pub(crate) fn require_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer().ok_or(Error::NoTokenizer)
    }
}

/// Loads an artifact, and loads it again if an export replaced it meanwhile: what was loaded may be of both then.
fn load_current(artifact: &Artifact, load: impl Fn(&Artifact) -> Result<Model>) -> Result<Model> {
    let mut loaded = load(artifact);
    let mut is_current = artifact.is_current();
    let mut was_repeated = false;
    for _ in 1..Artifact::LOAD_ATTEMPTS {
        // of an export with the same files, which is complete again, a failure is the only trace: it is worth one more attempt
        let may_be_torn = matches!(loaded, Err(Error::Backend(BackendError::Load { .. }) | Error::Graph(_)));
        if is_current && (!may_be_torn || was_repeated) {
            break;
        }
        was_repeated = is_current;
        // a folder that was removed after loading holds nothing newer
        let Ok(replacement) = Artifact::open(artifact.folder()) else { break };
        loaded = load(&replacement);
        is_current = replacement.is_current();
    }
    loaded
}
