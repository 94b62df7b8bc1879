//! The model and the tokens of an observation.

use jetmoe_artifact::{Precision, Profile};
use serde::Serialize;

/// The model that was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservedModel {
    /// Backend and version, such as `ort 1.32.0`.
    pub backend: String,
    /// Precision of the graph.
    pub precision: Precision,
    /// Profile of the graph.
    pub profile: Profile,
}

/// A token of a sequence, or padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservedToken {
    /// Its id. Padding has one too, which no other token attends to.
    pub id: u32,
    /// The token as the vocabulary of the tokenizer has it, with its marks for spaces and bytes; `None` without a tokenizer.
    pub text: Option<String>,
    /// Position in its sequence, from 0; `None` for padding.
    pub position: Option<usize>,
    /// The step that computed it, from 0: a cached token has a smaller one than those that attend to it from the cache.
    pub step: usize,
}

impl ObservedToken {
    /// Whether it is padding.
    pub fn is_padding(&self) -> bool {
        self.position.is_none()
    }
}
