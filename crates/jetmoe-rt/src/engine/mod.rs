//! What a runtime must offer, and the runtimes that do.
//!
//! [`LoadedGraph`] and [`GraphSession`] are the whole interface between this crate and a runtime. A backend outside
//! this crate implements them and is wrapped by [`Model::from_graph`](crate::Model::from_graph).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jetmoe_artifact::{OutputName, Signature};
use ndarray::{Array2, ArrayD};

use crate::Result;

#[cfg(feature = "ort")]
mod allocator;
#[cfg(any(feature = "ort", feature = "tract"))]
mod contract;
#[cfg(any(feature = "ort", feature = "tract"))]
mod in_place;
pub mod library;
#[cfg(feature = "ort")]
mod mapped;
#[cfg(any(feature = "ort", feature = "tract"))]
pub(crate) mod operators;
#[cfg(feature = "ort")]
pub(crate) mod ort;
#[cfg(feature = "tract")]
mod trace;
#[cfg(feature = "tract")]
pub(crate) mod tract;

/// Output tensors by name.
pub type TensorMap = BTreeMap<OutputName, ArrayD<f32>>;

/// A graph with its weights in some runtime, shared by any number of sessions.
pub trait LoadedGraph: fmt::Debug + Send + Sync {
    /// The runtime and its version, as in `ort 1.32.0`.
    fn runtime(&self) -> String;

    /// Inputs and outputs of the graph.
    fn signature(&self) -> &Signature;

    /// Begins a session with an empty cache.
    ///
    /// # Errors
    /// What the runtime refuses.
    fn start(&self) -> Result<Box<dyn GraphSession>>;

    /// Writes the trace that was asked for when the graph was loaded. Does nothing, the default, where none was.
    ///
    /// # Errors
    /// What the runtime or the file system refuses.
    fn finish_trace(&self) -> Result<()> {
        Ok(())
    }
}

/// One batch of sequences in a runtime, with its cache.
pub trait GraphSession: fmt::Debug + Send {
    /// Runs the graph once and appends to the cache. Returns every output but the cache.
    ///
    /// # Errors
    /// What the runtime refuses; the cache is then what it was before.
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap>;

    /// How long the last [`GraphSession::run`] was in the runtime itself, without what prepares inputs and copies outputs;
    /// `None`, the default, where that is not known.
    fn engine_time(&self) -> Option<Duration> {
        None
    }

    /// A copy of the cache: [`OutputName::PresentKey`] and [`OutputName::PresentValue`] of every layer, each
    /// `[batch, kv_heads, cached tokens, kv_channels]`. Empty before the first step and for tasks without a cache.
    ///
    /// # Errors
    /// What the runtime refuses.
    fn cache(&self) -> Result<TensorMap>;

    /// Keeps the first `tokens` columns of the cache and drops the rest; does nothing if there are no more. After 0 the
    /// session is as it began.
    ///
    /// # Errors
    /// What the runtime refuses; the cache is then what it was before.
    fn truncate(&mut self, tokens: usize) -> Result<()>;
}

/// Inputs of one step, already checked: rectangular, ids inside the vocabulary, positions inside the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInputs {
    /// `[batch, new tokens]`
    pub input_ids: Array2<i64>,
    /// 1 where a token counts, `[batch, cached + new tokens]`
    pub attention_mask: Array2<i64>,
    /// `[batch, new tokens]`
    pub position_ids: Array2<i64>,
    /// Whose next-token logits will be read.
    pub logits: WantedLogits,
}

/// Which next-token logits of a step will be read. It is a permission to leave out the others and no duty, so who reads
/// counts columns from the end, as [`StepOutput::last_logits`](crate::StepOutput::last_logits) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WantedLogits {
    /// Those of every new token: `[batch, new tokens, vocab_size]`.
    All,
    /// Those of each sequence's last token: `[batch, 1, vocab_size]` is enough.
    Last,
}

impl WantedLogits {
    /// What the graph's input `logits_to_keep` takes for it.
    #[cfg(any(feature = "ort", feature = "tract"))]
    pub(crate) fn to_keep(self) -> i64 {
        match self {
            WantedLogits::All => 0,
            WantedLogits::Last => 1,
        }
    }
}
