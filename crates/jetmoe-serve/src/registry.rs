//! The models of a server by name: loaded when they are needed, unloaded when their memory is.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use jetmoe_rt::{Artifact, Error, ErrorKind, Generator, Model, Task};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::compute::Computations;
use crate::config::{Config, ModelConfig};
use crate::engine::{Engine, StartError};
use crate::error::{ApiError, ApiResult, without_paths};
use crate::generation::TokenTexts;

/// The models of a server.
#[derive(Debug)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    aliases: BTreeMap<String, String>,
    memory_bytes: Option<u64>,
    /// Counts requests, to order models by their last one.
    clock: AtomicU64,
    /// Held while models are loaded and unloaded, so that two loads do not count on the same memory.
    loading: Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    config: ModelConfig,
    task: Task,
    /// When the artifact was written, in seconds since 1970.
    created: u64,
    /// What it takes when it is loaded, in bytes.
    estimate: u64,
    last_use: AtomicU64,
    loaded: Mutex<Option<Arc<LoadedModel>>>,
}

/// A model in memory.
#[derive(Debug)]
pub struct LoadedModel {
    name: String,
    model: Model,
    engine: Option<Engine>,
    computations: Computations,
    token_texts: TokenTexts,
    /// In bytes.
    memory: u64,
}

impl LoadedModel {
    /// The name in the configuration, also if a request used an alias.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The engine, of a causal language model.
    ///
    /// # Errors
    /// Status 400 for a model of another task.
    pub fn engine(&self) -> ApiResult<&Engine> {
        self.engine.as_ref().ok_or_else(|| {
            ApiError::from(Error::WrongTask { found: self.model.task(), needed: Task::CausalLm })
        })
    }

    /// Most tokens of a sequence.
    pub fn positions(&self) -> usize {
        let of_model = self.model.config().max_position_embeddings;
        self.engine.as_ref().map_or(of_model, Engine::capacity)
    }

    /// The texts of its tokens.
    pub(crate) fn token_texts(&self) -> &TokenTexts {
        &self.token_texts
    }

    /// What runs outside of the engine.
    pub(crate) fn computations(&self) -> &Computations {
        &self.computations
    }

    /// The model, if it has a task.
    ///
    /// # Errors
    /// Status 400 for a model of another task.
    pub fn of_task(&self, needed: Task) -> ApiResult<&Model> {
        let found = self.model.task();
        if found == needed { Ok(&self.model) } else { Err(Error::WrongTask { found, needed }.into()) }
    }
}

/// A model that stays in memory as long as this value lives. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Lease(Arc<LoadedModel>);

impl Deref for Lease {
    type Target = LoadedModel;

    fn deref(&self) -> &LoadedModel {
        &self.0
    }
}

/// What is known of a model without loading it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSummary {
    /// The name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// The task.
    pub task: Task,
    /// When the artifact was written, in seconds since 1970.
    pub created: u64,
    /// Whether it is in memory.
    pub is_loaded: bool,
    /// Whether requests may ask which experts the tokens took.
    pub observes_experts: bool,
}

/// Why the models cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// An artifact cannot be used.
    #[error("the model {name:?}: {source}")]
    Model {
        /// Name of the model.
        name: String,
        /// What is wrong with it.
        source: Box<StartError>,
    },
    /// The models that are loaded at the start take more memory than they may.
    #[error(
        "the model {name:?} takes about {needed} bytes, and memory_bytes is {limit}\n  raise memory_bytes, or lower the model's slots, capacity or prefix_bytes"
    )]
    Memory {
        /// Name of the model.
        name: String,
        /// Its memory, in bytes.
        needed: u64,
        /// The limit, in bytes.
        limit: u64,
    },
}

impl Registry {
    /// Opens the artifacts of a configuration, and loads none.
    ///
    /// # Errors
    /// An artifact that is missing or damaged, or larger than all models together may be.
    pub fn open(config: &Config) -> Result<Self, RegistryError> {
        let mut entries = BTreeMap::new();
        let mut aliases = BTreeMap::new();
        for (name, model) in &config.models {
            let entry = Entry::open(name, model)?;
            if let Some(limit) = config.memory_bytes
                && entry.estimate > limit
            {
                return Err(RegistryError::Memory { name: name.clone(), needed: entry.estimate, limit });
            }
            aliases.extend(model.aliases.iter().map(|alias| (alias.clone(), name.clone())));
            entries.insert(name.clone(), entry);
        }
        Ok(Registry {
            entries,
            aliases,
            memory_bytes: config.memory_bytes,
            clock: AtomicU64::new(0),
            loading: Mutex::new(()),
        })
    }

    /// Loads the models that are to be loaded before the server is ready.
    ///
    /// # Errors
    /// The first model that cannot be loaded.
    pub async fn preload(&self) -> Result<(), RegistryError> {
        for (name, entry) in &self.entries {
            if entry.config.preload {
                self.load(name, entry).await.map_err(|source| RegistryError::Model {
                    name: name.clone(),
                    source: Box::new(source),
                })?;
            }
        }
        Ok(())
    }

    /// The model of a name or an alias, loaded if it is not. Without a name the only model there is.
    ///
    /// # Errors
    /// Status 404 for a name that no model has, 400 for none if there are several models; the error of a load, with the name.
    pub async fn get(&self, name: Option<&str>) -> ApiResult<Lease> {
        let (name, entry) = self.find(name)?;
        entry.last_use.store(self.clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        if let Some(loaded) = &*entry.loaded.lock().await {
            return Ok(Lease(Arc::clone(loaded)));
        }
        self.load(name, entry).await.map(Lease).map_err(|error| load_failed(name, &error))
    }

    /// The models, sorted by name.
    pub async fn summaries(&self) -> Vec<ModelSummary> {
        let mut summaries = Vec::with_capacity(self.entries.len());
        for (name, entry) in &self.entries {
            summaries.push(ModelSummary {
                name: name.clone(),
                aliases: entry.config.aliases.clone(),
                task: entry.task,
                created: entry.created,
                is_loaded: entry.loaded.lock().await.is_some(),
                observes_experts: entry.task == Task::CausalLm && entry.config.observe_experts,
            });
        }
        summaries
    }

    /// The models in memory, sorted by name.
    pub async fn loaded(&self) -> Vec<Lease> {
        let mut loaded = Vec::new();
        for entry in self.entries.values() {
            loaded.extend(entry.loaded.lock().await.as_ref().map(|model| Lease(Arc::clone(model))));
        }
        loaded
    }

    fn find(&self, name: Option<&str>) -> ApiResult<(&str, &Entry)> {
        let Some(name) = name else {
            let mut entries = self.entries.iter();
            return match (entries.next(), entries.next()) {
                (Some((name, entry)), None) => Ok((name, entry)),
                _ => Err(ApiError::invalid("model", "model is missing")
                    .with_advice("GET /v1/models lists the models of this server")),
            };
        };
        let known = self.aliases.get(name).map_or(name, String::as_str);
        let found = self.entries.get_key_value(known);
        found.map(|(name, entry)| (name.as_str(), entry)).ok_or_else(|| ApiError::no_such_model(name))
    }

    /// Loads a model, unless another request has meanwhile.
    async fn load(&self, name: &str, entry: &Entry) -> Result<Arc<LoadedModel>, StartError> {
        let _loading = self.loading.lock().await;
        if let Some(loaded) = &*entry.loaded.lock().await {
            return Ok(Arc::clone(loaded));
        }
        self.make_room(entry.estimate).await?;
        let (owned_name, config, estimate) = (name.to_owned(), entry.config.clone(), entry.estimate);
        tracing::info!(model = name, "loading");
        let loaded = spawn_blocking(move || LoadedModel::load(owned_name, &config, estimate));
        let loaded = loaded.await.map_err(|error| {
            tracing::error!(model = name, %error, "loading did not end");
            Error::Cancelled
        })?;
        let loaded = Arc::new(loaded?);
        tracing::info!(model = name, backend = loaded.model.backend(), bytes = loaded.memory, "loaded");
        *entry.loaded.lock().await = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Unloads idle models, the least recently used first, until `needed` bytes are free.
    async fn make_room(&self, needed: u64) -> jetmoe_rt::Result<()> {
        let Some(limit) = self.memory_bytes else { return Ok(()) };
        let mut by_use: Vec<&Entry> = self.entries.values().collect();
        by_use.sort_by_key(|entry| entry.last_use.load(Ordering::Relaxed));
        let mut used = 0_u64;
        for entry in &by_use {
            used += entry.loaded.lock().await.as_ref().map_or(0, |loaded| loaded.memory);
        }
        for entry in by_use {
            if used.saturating_add(needed) <= limit {
                return Ok(());
            }
            let mut loaded = entry.loaded.lock().await;
            // no request can take it while its lock is held
            if loaded.as_ref().is_some_and(|model| Arc::strong_count(model) == 1)
                && let Some(model) = loaded.take()
            {
                used = used.saturating_sub(model.memory);
                tracing::info!(model = model.name, "unloaded");
                // its engine ends with it, which may wait for a step; dropping is no failure that matters here
                let _dropped = spawn_blocking(move || drop(model)).await;
            }
        }
        match used.saturating_add(needed) <= limit {
            true => Ok(()),
            false => Err(too_little_memory(needed, limit - used.min(limit))),
        }
    }
}

/// The models in use leave too little memory. The same request can succeed later.
fn too_little_memory(needed: u64, available: u64) -> Error {
    Error::Memory { backend: "the server", device: None, graph: "model".into(), needed, available }
}

/// What the configuration requests is not the client's mistake, so the status is 500, or 503 for memory.
fn load_failed(name: &str, error: &StartError) -> ApiError {
    tracing::error!(model = name, error = %without_paths(&error.to_string()), "loading failed");
    let (status, kind) = match error {
        StartError::Model(error) if error.kind() == ErrorKind::Busy => {
            (StatusCode::SERVICE_UNAVAILABLE, error.kind())
        }
        StartError::Model(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.kind()),
        StartError::Memory { .. } => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Busy),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Internal),
    };
    ApiError::new(status, "model_load_failed", format!("the model {name:?} cannot be loaded: {kind}"))
        .with_param("model")
        .with_advice("the server's log has the cause")
}

impl Entry {
    fn open(name: &str, config: &ModelConfig) -> Result<Self, RegistryError> {
        let failed =
            |source: Error| RegistryError::Model { name: name.to_owned(), source: Box::new(source.into()) };
        let artifact = Artifact::open(&config.folder).map_err(|error| failed(error.into()))?;
        let graph =
            artifact.graph(config.precision(), config.profile()).map_err(|error| failed(error.into()))?;
        let written = artifact.path(&graph.graph).metadata().and_then(|metadata| metadata.modified());
        let written = written.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH);
        let data = artifact.path(&graph.data).metadata().map_or(0, |metadata| metadata.len());
        let cache = match graph.task {
            Task::CausalLm => config.cache_bytes(&artifact.signature(graph), artifact.config()),
            _ => 0,
        };
        Ok(Entry {
            config: ModelConfig { folder: artifact.folder().to_owned(), ..config.clone() },
            task: graph.task,
            created: written.map_or(0, |since| since.as_secs()),
            estimate: data.saturating_add(cache),
            last_use: AtomicU64::new(0),
            loaded: Mutex::new(None),
        })
    }
}

impl LoadedModel {
    fn load(name: String, config: &ModelConfig, memory: u64) -> Result<Self, StartError> {
        let model = Model::load(&config.folder, &config.load_options()?)?;
        let engine = match model.task() {
            Task::CausalLm => Some(Engine::start(Generator::new(&model)?, config.engine_options())?),
            Task::Backbone | Task::SequenceClassification => None,
        };
        let token_texts = model.tokenizer().map_or_else(|| Ok(TokenTexts::default()), TokenTexts::new)?;
        let computations = Computations::new(config.queue);
        Ok(LoadedModel { name, model, engine, computations, token_texts, memory })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
