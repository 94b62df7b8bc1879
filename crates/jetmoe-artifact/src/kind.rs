//! What a graph is for and how it is written: task, precision, profile, optional outputs.

use std::fmt;
use std::str::FromStr;

use jetmoe_checkpoint::Architecture;
use serde::{Deserialize, Serialize};

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

/// Element types of a graph's weights and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in float32.
    F32,
}

/// Which operators a graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Only operators of the standard `ai.onnx` domain.
    Portable,
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

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $name),+ })
            }
        }

        impl FromStr for $type {
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

named!(
    Task,
    "task",
    CausalLm = "causal-lm",
    Backbone = "backbone",
    SequenceClassification = "sequence-classification"
);
named!(Precision, "precision", F32 = "f32");
named!(Profile, "profile", Portable = "portable");
named!(OptionalOutput, "output", HiddenStates = "hidden-states", RouterLogits = "router-logits");
