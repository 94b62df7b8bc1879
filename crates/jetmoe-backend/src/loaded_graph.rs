//! A loaded graph and its sessions: the interface of a backend after loading.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use jetmoe_artifact::{OutputName, Signature};
use ndarray::{Array2, ArrayD};

use crate::{CancellationToken, Result};

/// Output tensors by name.
pub type TensorMap = BTreeMap<OutputName, ArrayD<f32>>;

/// A graph with its weights in a backend, shared by any number of sessions.
pub trait LoadedGraph: fmt::Debug + Send + Sync {
    /// The backend and its version, as in `ort 1.32.0`, with the device unless it is the CPU, as in
    /// `ort 1.24.1 (openvino CPU)`.
    fn backend(&self) -> String;

    /// Inputs and outputs of the graph.
    fn signature(&self) -> &Signature;

    /// Begins a session with an empty cache.
    ///
    /// # Errors
    /// An error of the backend.
    fn start(&self) -> Result<Box<dyn GraphSession>>;

    /// Empty slots for `count` sequences of at most `capacity` tokens each, which share steps; `None`, the default, if the graph
    /// cannot compute sequences of different lengths in one call. The memory of all of them is allocated.
    ///
    /// # Errors
    /// An error of the backend.
    fn start_slots(&self, count: usize, capacity: usize) -> Result<Option<Box<dyn SlotSession>>> {
        let _ = (count, capacity);
        Ok(None)
    }

    /// Bytes of key/value caches that all sessions together copied in memory of the host, apart from what a step itself computes
    /// there; `None`, the default, if the backend does not count them. With a cache on a device it is 0 until
    /// [`GraphSession::cache`] is called.
    fn cache_bytes_on_host(&self) -> Option<u64> {
        None
    }

    /// Writes the trace that was requested when the graph was loaded. Does nothing, the default, without one.
    ///
    /// # Errors
    /// An error of the backend or the file system.
    fn finish_trace(&self) -> Result<()> {
        Ok(())
    }
}

/// One batch of sequences in a backend, with its key/value cache.
pub trait GraphSession: fmt::Debug + Send {
    /// Runs the graph once and appends to the cache. Returns every output except the cache.
    ///
    /// A backend reads [`StepInputs::cancellation`] before it begins, and while it computes as often as its engine allows:
    ///
    /// | backend | stops |
    /// | --- | --- |
    /// | ONNX Runtime | after the running node of the graph; at once while it waits for a step of another session |
    /// | OpenVINO in ONNX Runtime | after the whole step, whose results are dropped: a run that is terminated leaves its subgraphs unusable |
    /// | tract | after the running node of the graph |
    /// | rten | after the whole step, whose results are dropped: it has no way to stop a run |
    /// | Candle reference | after the running layer |
    ///
    /// A node is one operator. The largest one of a native graph computes the experts of one layer, the largest one of the
    /// other graphs multiplies with one weight. The work of a node grows with the number of new tokens, so shorter steps
    /// stop sooner.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled) if the token was cancelled before the step was complete, or another
    /// error of the backend. The cache is then unchanged.
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap>;

    /// How long the last [`GraphSession::run`] took in the engine itself, without preparing inputs and copying outputs.
    /// `None`, the default, if unknown.
    fn backend_time(&self) -> Option<Duration> {
        None
    }

    /// A copy of the cache: [`OutputName::PresentKey`] and [`OutputName::PresentValue`] of every layer, each
    /// `[batch, kv_heads, cached tokens, kv_channels]`. Empty before the first step and for tasks without a cache.
    ///
    /// # Errors
    /// An error of the backend.
    fn cache(&self) -> Result<TensorMap>;

    /// Keeps the first `tokens` columns of the cache and drops the rest; does nothing if there are no more. After 0 the
    /// session is as new.
    ///
    /// # Errors
    /// An error of the backend. The cache is then unchanged.
    fn truncate(&mut self, tokens: usize) -> Result<()>;
}

/// The rows of one cache, each of a sequence of its own, in a backend. The caller counts the tokens of each slot.
pub trait SlotSession: fmt::Debug + Send {
    /// Runs the graph once for the tokens of all listed sequences, and writes their keys and values behind the cached ones.
    /// Returns every output except the cache: `[1, tokens, ...]`, and next-token logits of the last tokens only.
    ///
    /// # Errors
    /// As [`GraphSession::run`]. The cache is then changed only behind the cached tokens.
    fn run(&mut self, inputs: &SlotInputs) -> Result<TensorMap>;

    /// As [`GraphSession::backend_time`].
    fn backend_time(&self) -> Option<Duration> {
        None
    }

    /// Copies keys and values of some tokens of a slot.
    ///
    /// # Errors
    /// An error of the backend.
    fn save(&self, slot: usize, tokens: Range<usize>) -> Result<SavedCache>;

    /// Writes the first `tokens` saved tokens into a slot, from a place on.
    ///
    /// # Errors
    /// [`Error::Contract`](crate::Error::Contract) for more tokens than were saved or a slot has capacity for, or an error of the
    /// backend.
    fn restore(&mut self, place: (usize, usize), saved: &SavedCache, tokens: usize) -> Result<()>;
}

/// Inputs of one step of slots, already checked.
#[derive(Debug, Clone)]
pub struct SlotInputs {
    /// `[tokens]`, those of one sequence after those of another.
    pub input_ids: Vec<i64>,
    /// `[tokens]`
    pub position_ids: Vec<i64>,
    /// Of each sequence: its slot, the tokens that the slot holds, and its new tokens. A slot may come again, to continue what came
    /// before.
    pub sequences: Vec<[usize; 3]>,
    /// How many of the last tokens have their next-token logits returned; at least one has.
    pub logits: usize,
    /// Stops the step.
    pub cancellation: CancellationToken,
}

/// Keys and values of consecutive tokens of a sequence, in memory of their own.
pub struct SavedCache {
    /// Buffers of the backend.
    pub(crate) content: Box<dyn Any + Send>,
    pub(crate) tokens: usize,
    pub(crate) bytes: u64,
}

impl SavedCache {
    /// Memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for SavedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedCache")
            .field("tokens", &self.tokens)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Inputs of one step, already checked: rectangular, ids inside the vocabulary, positions inside the model's.
#[derive(Debug, Clone)]
pub struct StepInputs {
    /// `[batch, new tokens]`
    pub input_ids: Array2<i64>,
    /// 1 for a token, 0 for padding, `[batch, cached + new tokens]`
    pub attention_mask: Array2<i64>,
    /// `[batch, new tokens]`
    pub position_ids: Array2<i64>,
    /// Which next-token logits will be read.
    pub logits: LogitsToKeep,
    /// Stops the step.
    pub cancellation: CancellationToken,
}

/// Which next-token logits of a step will be read. A backend may compute all of them anyway, so callers count columns from
/// the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogitsToKeep {
    /// Those of every new token: `[batch, new tokens, vocab_size]`.
    All,
    /// Those of each sequence's last token: `[batch, 1, vocab_size]` is enough.
    Last,
}

impl LogitsToKeep {
    /// The value of the graph's input `logits_to_keep`.
    pub fn as_input(self) -> i64 {
        match self {
            LogitsToKeep::All => 0,
            LogitsToKeep::Last => 1,
        }
    }
}
