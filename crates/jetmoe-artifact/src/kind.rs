//! What a graph is for and how it is written: task, precision, profile, optional outputs.

use jetmoe_checkpoint::Architecture;
use serde::{Deserialize, Serialize};

use crate::{ElementType, WeightStorage};

/// What a graph computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Next-token logits, with a key/value cache.
    CausalLm,
    /// The hidden state after the final norm, with a key/value cache.
    Backbone,
    /// One row of class logits per sequence, without a cache.
    SequenceClassification,
}

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
}

/// Element types of a graph's weights and arithmetic, from the most exact to the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in float32.
    F32,
    /// Everything in float16; norms, routers' choices and softmax in float32.
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

impl Precision {
    /// Element type of activations and of the key/value cache.
    pub fn activations(self) -> ElementType {
        match self {
            Precision::F32 | Precision::Bf16 | Precision::Int8 | Precision::Q4 => ElementType::Float32,
            Precision::F16 | Precision::Q4F16 => ElementType::Float16,
        }
    }

    /// How the products' weights are stored where nothing else was asked for.
    pub fn storage(self) -> WeightStorage {
        match self {
            Precision::F32 => WeightStorage::F32,
            Precision::F16 => WeightStorage::F16,
            Precision::Bf16 => WeightStorage::Bf16,
            Precision::Int8 => WeightStorage::Int8,
            Precision::Q4 | Precision::Q4F16 => WeightStorage::Int4,
        }
    }
}

/// Which operators a graph may use, from those of every runtime to those of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Only operators of the standard `ai.onnx` domain.
    Portable,
    /// Also ONNX Runtime's own operators, `com.microsoft`, where they are faster or load sooner.
    OnnxRuntime,
    /// Also our own operators of the domain `jetmoe`, which jetmoe-rt brings to ONNX Runtime and to tract.
    Native,
}

impl Profile {
    /// Whether graphs may use ONNX Runtime's own operators, those of attention among them.
    pub fn uses_onnx_runtime(self) -> bool {
        match self {
            Profile::Portable => false,
            Profile::OnnxRuntime | Profile::Native => true,
        }
    }

    /// Whether clients other than jetmoe-rt can run its graphs.
    pub fn is_for_other_clients(self) -> bool {
        self != Profile::Native
    }

    /// Whether there are graphs of a precision. Our own operators compute in float32, with weights that are smaller than
    /// that.
    pub fn has(self, precision: Precision) -> bool {
        match self {
            Profile::Portable | Profile::OnnxRuntime => true,
            Profile::Native => matches!(precision, Precision::Bf16 | Precision::Int8 | Precision::Q4),
        }
    }
}

/// What a step does with the key/value cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheUpdate {
    /// The step returns a new cache, in which the new tokens stand behind the old ones. Padding may stand anywhere.
    Append,
    /// The step may be given a cache with room for more tokens than it holds, and writes the new ones into it where past
    /// and present are the same buffer. The tokens of a sequence begin at its first place, so padding stands behind them,
    /// and how many there are is what its row of `attention_mask` adds up to.
    InPlace,
}

/// Outputs that a graph has only when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionalOutput {
    /// The embedding and the output of every layer.
    HiddenStates,
    /// The logits of both routers of every layer.
    RouterLogits,
}

/// `Display` and `FromStr` by one table of names.
macro_rules! named {
    ($type:ident, $what:literal, $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Every value, in the order they are listed to users.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($type::$variant => $name),+ })
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok($type::$variant),)+
                    other => Err(format!(
                        "unknown {} {other:?}; known: {}", $what, [$($name),+].join(", ")
                    )),
                }
            }
        }
    };
}

pub(crate) use named;

named!(
    Task,
    "task",
    CausalLm = "causal-lm",
    Backbone = "backbone",
    SequenceClassification = "sequence-classification"
);
named!(
    Precision,
    "precision",
    F32 = "f32",
    F16 = "f16",
    Bf16 = "bf16",
    Int8 = "int8",
    Q4F16 = "q4f16",
    Q4 = "q4"
);
named!(Profile, "profile", Portable = "portable", OnnxRuntime = "onnxruntime", Native = "native");
named!(OptionalOutput, "output", HiddenStates = "hidden-states", RouterLogits = "router-logits");
