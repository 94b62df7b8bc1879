//! Task, precision, profile and optional outputs of a graph.

use std::path::Path;

use jetmoe_checkpoint::{Architecture, GenerationConfig, ModelConfig};
use jetmoe_format::{ElementType, UnknownName, WeightFormat, named};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};

/// The task that a graph computes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Task>)]
pub enum Task {
    /// Next-token logits, with a key/value cache.
    CausalLm,
    /// The hidden state after the final norm, with a key/value cache.
    Backbone,
    /// One row of class logits per sequence, without a cache.
    SequenceClassification,
}

named!(Task, "task");

impl Task {
    /// Whether the graph takes and returns a key/value cache.
    pub fn has_cache(self) -> bool {
        match self {
            Task::CausalLm | Task::Backbone => true,
            Task::SequenceClassification => false,
        }
    }

    /// The task that a checkpoint was trained for.
    pub fn of_architecture(architecture: Architecture) -> Self {
        match architecture {
            Architecture::CausalLm => Task::CausalLm,
            Architecture::Base => Task::Backbone,
            Architecture::SequenceClassification => Task::SequenceClassification,
        }
    }

    /// The settings for generation in a folder, see [`GenerationConfig::open`]. Only a causal language model follows them: for
    /// another task no file is read, and the result holds the special tokens of `config` alone.
    ///
    /// # Errors
    /// A file that cannot be read, or settings that cannot be followed.
    pub fn generation_config(
        self,
        folder: &Path,
        config: &ModelConfig,
    ) -> jetmoe_checkpoint::Result<GenerationConfig> {
        match self {
            Task::CausalLm => GenerationConfig::open(folder, config),
            Task::Backbone | Task::SequenceClassification => Ok(GenerationConfig::from_model_config(config)),
        }
    }
}

/// Element types of a graph's weights and arithmetic, from the most exact to the smallest.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Precision>)]
pub enum Precision {
    /// Everything in float32.
    F32,
    /// Everything in float16; norms, router and softmax in float32.
    F16,
    /// Weights stored as bfloat16, arithmetic in float32: ONNX Runtime's CPU kernels compute almost nothing in bfloat16.
    Bf16,
    /// 8-bit weights with a scale per group, arithmetic in float32.
    Int8,
    /// 4-bit weights with a scale per group, arithmetic in float16.
    Q4F16,
    /// 4-bit weights with a scale per group, arithmetic in float32.
    Q4,
}

named!(Precision, "precision");

impl Precision {
    /// Element type of activations and of the key/value cache.
    pub fn activations(self) -> ElementType {
        match self {
            Precision::F32 | Precision::Bf16 | Precision::Int8 | Precision::Q4 => ElementType::Float32,
            Precision::F16 | Precision::Q4F16 => ElementType::Float16,
        }
    }

    /// The default format of product weights.
    pub fn format(self) -> WeightFormat {
        match self {
            Precision::F32 => WeightFormat::F32,
            Precision::F16 => WeightFormat::F16,
            Precision::Bf16 => WeightFormat::Bf16,
            Precision::Int8 => WeightFormat::Int8,
            Precision::Q4 | Precision::Q4F16 => WeightFormat::Int4,
        }
    }

    /// The default format of the head's weights.
    ///
    /// With 4-bit weights the head uses 8 bits: it is 1 of 130 weights of JetMoE-8B, and because it is also the embedding
    /// it causes half of the loss of quality. The override `int4:lm_head` uses 4 bits.
    pub fn head_format(self) -> WeightFormat {
        match self.format() {
            WeightFormat::Int4 => WeightFormat::Int8,
            format => format,
        }
    }
}

/// The operators that a graph may use, from the most to the least portable.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Profile>)]
pub enum Profile {
    /// Only operators of the standard `ai.onnx` domain.
    Portable,
    /// Also ONNX Runtime's contrib operators, `com.microsoft`, where they are faster or load sooner.
    OnnxRuntime,
    /// As `onnxruntime`, for a GPU: operators that ONNX Runtime has CUDA kernels for, and no size that depends on data, which the
    /// processor would have to wait for.
    Gpu,
    /// Also the custom operators of the domain `jetmoe`, which jetmoe-rt registers in ONNX Runtime and in tract.
    Native,
}

named!(Profile, "profile");

impl Profile {
    /// Whether graphs may use ONNX Runtime's contrib operators, including attention.
    pub fn uses_onnx_runtime(self) -> bool {
        match self {
            Profile::Portable => false,
            Profile::OnnxRuntime | Profile::Gpu | Profile::Native => true,
        }
    }

    /// Whether clients other than jetmoe-rt can run its graphs.
    pub fn is_for_other_clients(self) -> bool {
        self != Profile::Native
    }

    /// Whether there are graphs of a precision. The custom operators compute in float32, with weights that are smaller
    /// than that.
    pub fn has(self, precision: Precision) -> bool {
        let is_float32 = precision.activations() == ElementType::Float32;
        self != Profile::Native || (is_float32 && precision.format().is_packable())
    }
}

/// How a step updates the key/value cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheUpdate {
    /// The step returns a new, longer cache. Padding may be anywhere.
    Append,
    /// The cache has capacity for more tokens than it holds. The step writes the new ones into it if past and present are
    /// the same buffer. The tokens of a sequence start at position 0, so padding follows them; their number is the
    /// sum of the sequence's row of `attention_mask`.
    InPlace,
    /// As [`InPlace`](CacheUpdate::InPlace), in rows of bytes ([`CacheFormat`](jetmoe_format::CacheFormat)). The columns of
    /// `attention_mask` are those of earlier steps, of which only the number of ones of each sequence counts, and those of the
    /// step's tokens. Padding may be anywhere, and every sequence may have any number of new tokens.
    InPlaceByMask,
}

impl CacheUpdate {
    /// Whether a step writes into the cache that it is given.
    pub fn is_in_place(self) -> bool {
        match self {
            CacheUpdate::Append => false,
            CacheUpdate::InPlace | CacheUpdate::InPlaceByMask => true,
        }
    }
}

/// Optional outputs of a graph.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<OptionalOutput>)]
pub enum OptionalOutput {
    /// The embedding and the output of every layer.
    HiddenStates,
    /// The logits of both routers of every layer.
    RouterLogits,
}

named!(OptionalOutput, "output");

/// Outputs that a copy of a graph in memory is given when it is loaded, so that its inner values can be read. No export has
/// them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, EnumString, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<ObservedValue>)]
pub enum ObservedValue {
    /// Which keys each query attends to.
    AttentionMask,
    /// The logits of both routers of every layer, the experts that they chose, and the gates of these.
    Routing,
}

named!(ObservedValue, "observed value");
