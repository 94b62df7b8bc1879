//! Inputs and outputs of a graph: names, element types and shapes, in order.

use std::collections::BTreeSet;
use std::fmt;

use jetmoe_checkpoint::ModelConfig;
use jetmoe_format::{CacheFormat, ElementType, SEQUENCE_NUMBERS};

use crate::names::{
    BATCH_SIZE, CACHE_BATCH_SIZE, LOGITS_LENGTH, PAST_SEQUENCE_LENGTH, SEQUENCE_COUNT, SEQUENCE_LENGTH,
};
use crate::{CacheUpdate, InputName, ObservedValue, OptionalOutput, OutputName, Precision, Profile, Task};

/// Size of one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// A constant.
    Fixed(usize),
    /// Number of sequences.
    BatchSize,
    /// Number of new tokens per sequence.
    SequenceLength,
    /// Number of cached tokens per sequence.
    PastSequenceLength,
    /// Cached and new tokens together.
    TotalSequenceLength,
    /// Number of new tokens per sequence whose logits are returned.
    LogitsLength,
    /// Number of sequences that a step lists, see [`InputName::Sequences`].
    SequenceCount,
    /// Number of sequences of a cache, of which a step may list some.
    CacheBatchSize,
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Fixed(size) => write!(f, "{size}"),
            Axis::BatchSize => f.write_str(BATCH_SIZE),
            Axis::SequenceLength => f.write_str(SEQUENCE_LENGTH),
            Axis::PastSequenceLength => f.write_str(PAST_SEQUENCE_LENGTH),
            Axis::LogitsLength => f.write_str(LOGITS_LENGTH),
            Axis::SequenceCount => f.write_str(SEQUENCE_COUNT),
            Axis::CacheBatchSize => f.write_str(CACHE_BATCH_SIZE),
            Axis::TotalSequenceLength => write!(f, "{PAST_SEQUENCE_LENGTH} + {SEQUENCE_LENGTH}"),
        }
    }
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// Its name.
    pub name: InputName,
    /// Its element type.
    pub element: ElementType,
    /// Its shape.
    pub shape: Vec<Axis>,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name.
    pub name: OutputName,
    /// Its element type: that of the activations for the cache, or uint8 for rows of bytes, and float32 for all others.
    pub element: ElementType,
    /// Its shape.
    pub shape: Vec<Axis>,
}

/// All inputs and outputs of a graph, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The inputs.
    pub inputs: Vec<InputSpec>,
    /// Inputs that default to zeros, and to none along an axis of any size.
    pub optional_inputs: Vec<InputSpec>,
    /// The outputs.
    pub outputs: Vec<OutputSpec>,
    /// How a step updates the cache, if there is one.
    pub cache_update: CacheUpdate,
}

/// ONNX Runtime's GroupQueryAttention requires a head width that is a multiple of this.
const GROUPED_QUERY_WIDTH: usize = 8;

impl Signature {
    /// Inputs and outputs of a graph for a configuration. All profiles except `portable` return only the requested logits,
    /// and update the cache in place if `kv_channels` is a multiple of 8, which ONNX Runtime requires.
    pub fn new(
        config: &ModelConfig,
        task: Task,
        precision: Precision,
        profile: Profile,
        optional: &BTreeSet<OptionalOutput>,
    ) -> Self {
        let batch = batch_axis(config, task);
        let layers = 0..config.num_hidden_layers;
        let heads = Axis::Fixed(config.num_key_value_heads);
        let width = Axis::Fixed(config.kv_channels);
        let tokens = vec![batch, Axis::SequenceLength];
        let total = if task.has_cache() { Axis::TotalSequenceLength } else { Axis::SequenceLength };

        let int64 = |name, shape| InputSpec { name, element: ElementType::Int64, shape };
        let mut inputs = vec![
            int64(InputName::InputIds, tokens.clone()),
            int64(InputName::AttentionMask, vec![batch, total]),
            int64(InputName::PositionIds, tokens),
        ];
        let hidden = Axis::Fixed(config.hidden_size);
        let per_token = |last| vec![batch, Axis::SequenceLength, last];
        let float32 = |name, shape| OutputSpec { name, element: ElementType::Float32, shape };
        let primary = match task {
            Task::CausalLm => {
                let length = match profile {
                    Profile::Portable => Axis::SequenceLength,
                    Profile::OnnxRuntime | Profile::Gpu | Profile::Native => Axis::LogitsLength,
                };
                float32(OutputName::Logits, vec![batch, length, Axis::Fixed(config.vocab_size)])
            }
            Task::Backbone => float32(OutputName::LastHiddenState, per_token(hidden)),
            Task::SequenceClassification => {
                float32(OutputName::Logits, vec![batch, Axis::Fixed(config.num_labels())])
            }
        };
        let mut outputs = vec![primary];
        if task.has_cache() {
            let past = vec![batch, heads, Axis::PastSequenceLength, width];
            let present = vec![batch, heads, Axis::TotalSequenceLength, width];
            let element = precision.activations();
            for layer in layers.clone() {
                for name in [InputName::PastKey(layer), InputName::PastValue(layer)] {
                    inputs.push(InputSpec { name, element, shape: past.clone() });
                }
                for name in [OutputName::PresentKey(layer), OutputName::PresentValue(layer)] {
                    outputs.push(OutputSpec { name, element, shape: present.clone() });
                }
            }
        }
        if optional.contains(&OptionalOutput::HiddenStates) {
            outputs.extend(
                (0..=config.num_hidden_layers)
                    .map(|index| float32(OutputName::HiddenState(index), per_token(hidden))),
            );
        }
        if optional.contains(&OptionalOutput::RouterLogits) {
            let experts = Axis::Fixed(config.num_local_experts);
            for name in [OutputName::AttentionRouterLogits, OutputName::MlpRouterLogits] {
                outputs.extend(layers.clone().map(|layer| float32(name(layer), per_token(experts))));
            }
        }
        let optional_inputs = match (task, profile) {
            (Task::CausalLm, Profile::OnnxRuntime | Profile::Gpu | Profile::Native) => {
                vec![int64(InputName::LogitsToKeep, vec![Axis::Fixed(1)])]
            }
            _ => Vec::new(),
        };
        let in_place = task.has_cache()
            && has_grouped_queries(profile, precision)
            && config.kv_channels.is_multiple_of(GROUPED_QUERY_WIDTH);
        let cache_update = if in_place { CacheUpdate::InPlace } else { CacheUpdate::Append };
        Signature { inputs, optional_inputs, outputs, cache_update }
    }

    /// The signature of a graph with the operator `Attention`, which stores the cache in a format, and takes a list of sequences.
    /// Does nothing to that of a task without a cache.
    #[must_use]
    pub fn with_kv_cache(mut self, config: &ModelConfig, format: CacheFormat) -> Self {
        let row = Axis::Fixed(format.row_bytes(config.kv_channels).unwrap_or(usize::MAX));
        let past = self.inputs.iter_mut().filter(|input| input.name.is_cache());
        let present = self.outputs.iter_mut().filter(|output| output.name.is_cache());
        let past = past.map(|input| (&mut input.element, &mut input.shape));
        let present = present.map(|output| (&mut output.element, &mut output.shape));
        for (element, shape) in past.chain(present) {
            *element = ElementType::UInt8;
            if let [batch, .., width] = shape.as_mut_slice() {
                (*batch, *width) = (Axis::CacheBatchSize, row);
            }
            self.cache_update = CacheUpdate::InPlaceByMask;
        }
        if self.cache_update == CacheUpdate::InPlaceByMask {
            let shape = vec![Axis::SequenceCount, Axis::Fixed(SEQUENCE_NUMBERS)];
            let element = ElementType::Int64;
            self.optional_inputs.push(InputSpec { name: InputName::Sequences, element, shape });
        }
        self
    }

    /// The signature of a copy of the graph with more outputs, behind those that it has.
    #[must_use]
    pub fn with_observed(mut self, config: &ModelConfig, observed: &BTreeSet<ObservedValue>) -> Self {
        let [batch, total] = match self.inputs.iter().find(|input| input.name == InputName::AttentionMask) {
            Some(InputSpec { shape, .. }) if shape.len() == 2 => [shape[0], shape[1]],
            _ => [Axis::BatchSize, Axis::TotalSequenceLength],
        };
        let mut add = |name: OutputName, shape: Vec<Axis>| {
            if self.outputs.iter().all(|output| output.name != name) {
                self.outputs.push(OutputSpec { name, element: ElementType::Float32, shape });
            }
        };
        for value in observed {
            match (value, self.cache_update) {
                (ObservedValue::AttentionMask, CacheUpdate::Append) => {
                    add(OutputName::AttentionBias, vec![batch, Axis::Fixed(1), Axis::SequenceLength, total]);
                }
                (ObservedValue::AttentionMask, CacheUpdate::InPlace | CacheUpdate::InPlaceByMask) => {
                    add(OutputName::AttendedKeys, vec![batch, Axis::SequenceLength, total]);
                }
                (ObservedValue::Routing, _) => {
                    let per_token = |width| vec![batch, Axis::SequenceLength, Axis::Fixed(width)];
                    let choice = 2 * config.num_experts_per_token;
                    for layer in 0..config.num_hidden_layers {
                        for name in [OutputName::AttentionRouterLogits, OutputName::MlpRouterLogits] {
                            add(name(layer), per_token(config.num_local_experts));
                        }
                        for name in [OutputName::AttentionRouterChoice, OutputName::MlpRouterChoice] {
                            add(name(layer), per_token(choice));
                        }
                    }
                }
            }
        }
        self
    }
}

/// Whether graphs use `GroupQueryAttention`. Its CUDA kernels compute in float16 only.
fn has_grouped_queries(profile: Profile, precision: Precision) -> bool {
    match profile {
        Profile::Portable => false,
        Profile::OnnxRuntime | Profile::Native => true,
        Profile::Gpu => precision.activations() == ElementType::Float16,
    }
}

/// A classifier without a padding token cannot find the end of a padded sequence, so it takes one sequence at a time.
fn batch_axis(config: &ModelConfig, task: Task) -> Axis {
    match task {
        Task::SequenceClassification if config.pad_token_id.is_none() => Axis::Fixed(1),
        _ => Axis::BatchSize,
    }
}
