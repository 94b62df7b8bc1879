//! The configuration of one model.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use jetmoe_rt::{
    Device, LoadOptions, ObservedValue, Precision, Profile, ProviderOption, Signature, backend, cache_bytes,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, check};
use crate::engine::EngineOptions;

/// The configuration of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Folder of the artifact.
    pub folder: PathBuf,
    /// Further names that requests may use. None by default.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Whether the model is loaded before the server is ready; otherwise by the first request. True by default.
    #[serde(default = "yes")]
    pub preload: bool,
    /// Backend; `None`, the default, for the first usable one of this build.
    #[serde(default)]
    pub backend: Option<String>,
    /// Device, such as `cpu` or `cuda:1`; `cpu` by default.
    #[serde(default)]
    pub device: Text<Device>,
    /// Options of the device, such as `precision=bf16`. None by default.
    #[serde(default)]
    pub provider_options: Vec<String>,
    /// Precision of the graph; `None`, the default, for the most exact one that the backend supports.
    #[serde(default)]
    pub precision: Option<Text<Precision>>,
    /// Profile of the graph; `None`, the default, for the one that the backend prefers.
    #[serde(default)]
    pub profile: Option<Text<Profile>>,
    /// Threads; `None`, the default, for one per physical core.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Whether activations stay in float32 where ONNX Runtime would quantize them to 8 bits. False by default.
    #[serde(default)]
    pub exact: bool,
    /// Whether a request's answer has the same bits whatever is served beside it, which costs speed in long prompts on processors with
    /// AMX. True by default.
    #[serde(default = "yes")]
    pub batch_invariant: bool,
    /// Whether ONNX Runtime converts 16-bit weights in each step. False by default.
    #[serde(default)]
    pub low_memory: bool,
    /// Whether a model that does not seem to fit in memory is refused. True by default.
    #[serde(default = "yes")]
    pub check_memory: bool,
    /// Whether a graph is loaded without the check that the exporter can have written it. False by default.
    #[serde(default)]
    pub trust_graph: bool,
    /// Whether the digest of the weights is compared with the manifest when they are loaded. False by default.
    #[serde(default)]
    pub verify_digests: bool,
    /// Folder for a private copy of the weights. `None`, the default, maps the artifact's file.
    #[serde(default)]
    pub private_copy: Option<PathBuf>,
    /// The libonnxruntime; `None`, the default, searches for one.
    #[serde(default)]
    pub onnxruntime: Option<PathBuf>,
    /// Sequences that share steps; 8 by default.
    #[serde(default = "default_slots")]
    pub slots: usize,
    /// Most tokens of a sequence; `None`, the default, for the positions of the model.
    #[serde(default)]
    pub capacity: Option<usize>,
    /// Most tokens of prompts in a step; 256 by default.
    #[serde(default = "default_prefill_chunk")]
    pub prefill_chunk: usize,
    /// Most sequences that wait for a slot; 256 by default.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// Bytes for prefixes that are kept for later requests; 256 MiB by default, 0 for none.
    #[serde(default = "default_prefix_bytes")]
    pub prefix_bytes: u64,
    /// Whether requests may ask which experts the tokens took, and the load of the experts is measured. False by default: it
    /// takes a few per cent of a step.
    #[serde(default)]
    pub observe_experts: bool,
}

fn yes() -> bool {
    true
}

fn default_slots() -> usize {
    8
}

fn default_prefill_chunk() -> usize {
    256
}

fn default_queue() -> usize {
    256
}

fn default_prefix_bytes() -> u64 {
    256 << 20
}

impl ModelConfig {
    /// A model in a folder, with the defaults.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        ModelConfig {
            folder: folder.into(),
            aliases: Vec::new(),
            preload: true,
            backend: None,
            device: Text::default(),
            provider_options: Vec::new(),
            precision: None,
            profile: None,
            threads: None,
            exact: false,
            batch_invariant: true,
            low_memory: false,
            check_memory: true,
            trust_graph: false,
            verify_digests: false,
            private_copy: None,
            onnxruntime: None,
            slots: default_slots(),
            capacity: None,
            prefill_chunk: default_prefill_chunk(),
            queue: default_queue(),
            prefix_bytes: default_prefix_bytes(),
            observe_experts: false,
        }
    }

    /// Checks every value.
    pub(super) fn validate(&self, name: &str) -> Result<(), ConfigError> {
        let counts = [
            ("slots", self.slots),
            ("prefill_chunk", self.prefill_chunk),
            ("queue", self.queue),
            ("threads", self.threads.unwrap_or(1)),
            ("capacity", self.capacity.unwrap_or(1)),
        ];
        for (key, value) in counts {
            check(&format!("models.{name}.{key}"), value, value >= 1, "at least 1")?;
        }
        self.load_options()
            .map(drop)
            .map_err(|source| ConfigError::Model { name: name.to_owned(), source: Box::new(source) })
    }

    /// How the model is loaded.
    ///
    /// # Errors
    /// A backend that does not exist or is not built in, or an option that the device does not have.
    pub fn load_options(&self) -> jetmoe_rt::Result<LoadOptions> {
        let provider_options: Vec<ProviderOption> = self
            .provider_options
            .iter()
            .map(|option| option.parse::<ProviderOption>())
            .collect::<Result<_, _>>()?;
        let mut options = LoadOptions::default()
            .with_backend(self.backend.as_deref().map(backend).transpose()?)
            .with_device(self.device.0.clone().with_options(&provider_options)?)
            .with_precision(self.precision())
            .with_profile(self.profile())
            .with_threads(self.threads)
            .with_int8_activations(!self.exact)
            .with_batch_invariant(self.batch_invariant)
            .with_low_memory(self.low_memory)
            .with_max_sequence_length(self.capacity)
            .with_check_memory(self.check_memory)
            .with_trust_graph(self.trust_graph)
            .with_verify_digests(self.verify_digests)
            .with_observed(self.observe_experts.then_some(ObservedValue::Routing));
        options.private_copy.clone_from(&self.private_copy);
        options.onnxruntime_library.clone_from(&self.onnxruntime);
        Ok(options)
    }

    /// The precision of the graph, if one is requested.
    pub(crate) fn precision(&self) -> Option<Precision> {
        self.precision.as_ref().map(|precision| precision.0)
    }

    /// The profile of the graph, if one is requested.
    pub(crate) fn profile(&self) -> Option<Profile> {
        self.profile.as_ref().map(|profile| profile.0)
    }

    /// Bytes of the full cache of every slot, and of the kept prefixes, for a graph of a model.
    pub(crate) fn cache_bytes(&self, graph: &Signature, model: &jetmoe_rt::ModelConfig) -> u64 {
        let slot = cache_bytes(graph, self.engine_options().capacity_of(model));
        (self.slots as u64).saturating_mul(slot).saturating_add(self.prefix_bytes)
    }

    /// Sizes of the engine.
    pub fn engine_options(&self) -> EngineOptions {
        EngineOptions::default()
            .with_slots(self.slots)
            .with_capacity(self.capacity)
            .with_prefill_chunk(self.prefill_chunk)
            .with_queue(self.queue)
            .with_prefix_memory(self.prefix_bytes)
    }
}

/// A value that is written as a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Text<T>(pub T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Text).map_err(serde::de::Error::custom)
    }
}
