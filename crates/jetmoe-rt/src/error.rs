//! Why a model could not be loaded or run.

use std::path::PathBuf;

use jetmoe_artifact::{OutputName, Precision, Profile, Task};

use crate::built_in_names;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be loaded or run. [`Error::kind`] says whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend could not load or run the graph.
    #[error(transparent)]
    Backend(#[from] jetmoe_backend::Error),
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// The graph is not one that the exporter writes for its artifact, or cannot be read.
    #[error(transparent)]
    Graph(#[from] jetmoe_onnx::Error),
    /// The tokenizer or the chat template cannot be used.
    #[error(transparent)]
    Text(#[from] jetmoe_text::Error),
    /// A name that no backend has.
    #[error("unknown backend {name:?}; known: {}", built_in_names().join(", "))]
    UnknownBackend {
        /// The name.
        name: String,
    },
    /// The backend was not compiled in.
    #[error(
        "this build has no {backend}\n  build with the cargo feature `{backend}`, or choose another backend"
    )]
    NotBuiltIn {
        /// Its name.
        backend: &'static str,
    },
    /// No backend of this build has the device.
    #[error("no backend of this build computes on the device {device}")]
    NoBackend {
        /// The requested device.
        device: String,
    },
    /// The backend does not have the device.
    #[error("{backend} computes on the CPU only, and the device is {device}")]
    CpuOnly {
        /// The backend.
        backend: &'static str,
        /// The requested device.
        device: String,
    },
    /// The backend cannot run such graphs.
    #[error("{backend} cannot run {precision} graphs of the {profile} profile: {reason}")]
    Unsupported {
        /// The backend.
        backend: &'static str,
        /// Precision of the graph.
        precision: Precision,
        /// Profile of the graph.
        profile: Profile,
        /// Why not.
        reason: String,
    },
    /// The graph will not fit in memory.
    #[error(
        "{} takes about {} of memory in {backend}{}, and {} are left",
        graph.display(), gigabytes(*needed), device.as_ref().map_or_else(String::new, |device| format!(" on {device}")),
        gigabytes(*available)
    )]
    Memory {
        /// The backend.
        backend: &'static str,
        /// The device; `None` for the memory of the machine.
        device: Option<String>,
        /// The graph file.
        graph: PathBuf,
        /// What it takes, in bytes.
        needed: u64,
        /// What is left, in bytes.
        available: u64,
    },
    /// Logits that no token or class can be chosen by.
    #[error("{backend} computed unusable logits: {problem}; the weights or the precision are not usable")]
    Logits {
        /// Backend and version.
        backend: String,
        /// Which logits, and what is wrong with them.
        problem: String,
    },
    /// The step was cancelled by the session's [`CancellationToken`](crate::CancellationToken).
    #[error("the step was cancelled")]
    Cancelled,
    /// A prompt holds no token.
    #[error("text or prompt {index} is empty; give at least one token")]
    EmptyPrompt {
        /// Which prompt of the batch, from 0.
        index: usize,
    },
    /// A continuation without a token, so there is nothing to score.
    #[error(
        "continuation {index} has no token of its own; give at least one character that the tokenizer does not merge with \
         the prompt"
    )]
    EmptyContinuation {
        /// Which continuation of the request, from 0.
        index: usize,
    },
    /// A sequence that the batch does not have.
    #[error("there is no sequence {sequence} in a batch of {sequences}; they are counted from 0")]
    NoSequence {
        /// The requested index.
        sequence: usize,
        /// How many the session has; 0 before its first step.
        sequences: usize,
    },
    /// A token id that the model does not have.
    #[error("token id {id} of sequence {row}, token {column}, is beyond the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Sequence in the batch, from 0.
        row: usize,
        /// Token in the sequence, from 0.
        column: usize,
        /// Number of ids the model has.
        vocab_size: usize,
    },
    /// More tokens than the model has positions.
    #[error(
        "text or prompt {index} has {tokens} tokens, more than the {limit} positions of the model; shorten the text"
    )]
    TooLong {
        /// Which text, prompt or sequence, from 0.
        index: usize,
        /// Prompt and continuation so far.
        tokens: usize,
        /// `max_position_embeddings` of the configuration, or `LoadOptions::max_sequence_length` if that is less.
        limit: usize,
    },
    /// A text with so many bytes that it is not encoded to count its tokens.
    #[error(
        "text or prompt {index} has {bytes} bytes, more than the {limit} that are encoded for the {positions} positions of the \
         model\n  shorten the text, or raise max_text_bytes"
    )]
    TextTooLong {
        /// Which text or prompt, from 0.
        index: usize,
        /// Bytes of the text; of both texts of a pair, of a conversation as the template renders it.
        bytes: usize,
        /// [`Model::max_text_bytes`](crate::Model::max_text_bytes).
        limit: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A prompt that leaves no token for the continuation.
    #[error(
        "the prompt has {tokens} tokens, and max_length, which counts prompt and continuation, is {limit}\n  set \
         max_new_tokens instead, or shorten the text"
    )]
    MaxLength {
        /// Tokens of the prompt.
        tokens: usize,
        /// `max_length` of the options or of `generation_config.json`.
        limit: usize,
    },
    /// The options exclude every token.
    #[error(
        "the rules for logits exclude every token that could follow in sequence {sequence}\n  allow more tokens in \
         suppress_tokens, bad_words_ids, sequence_bias or no_repeat_ngram_size"
    )]
    NoTokenLeft {
        /// Which prompt of the batch, from 0.
        sequence: usize,
    },
    /// A cache that is to keep more tokens than it has.
    #[error(
        "cannot keep {tokens} tokens of a cache of {cached}; Session::past_length says how many there are"
    )]
    Truncation {
        /// How many were to be kept.
        tokens: usize,
        /// How many there are.
        cached: usize,
    },
    /// The model's task keeps no cache.
    #[error("the model keeps no cache, so there is nothing to truncate; every step sees its own tokens only")]
    NoCache,
    /// An input has another shape than it must have.
    #[error("{tensor} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What it must be.
        expected: Vec<usize>,
        /// What it is.
        found: Vec<usize>,
    },
    /// An output of the graph has another shape than the configuration requires.
    #[error("the output {name} has shape {found:?}, expected {expected:?}\n  export again")]
    OutputShape {
        /// Its name.
        name: OutputName,
        /// What it must be.
        expected: Vec<usize>,
        /// What it is.
        found: Vec<usize>,
    },
    /// The graph does not have an output.
    #[error("the graph has no output {name}; it has: {}", available.join(", "))]
    MissingOutput {
        /// The requested value.
        name: OutputName,
        /// What there is.
        available: Vec<String>,
    },
    /// An output of another task than the method reads.
    #[error("the output {name} has shape {found:?}, which is not {expected}")]
    OtherOutput {
        /// Its name.
        name: OutputName,
        /// Its shape.
        found: Vec<usize>,
        /// What the method reads, and which method reads the other one.
        expected: &'static str,
    },
    /// A name of a precision, a profile, a task or another choice that does not exist.
    #[error(transparent)]
    UnknownName(#[from] jetmoe_artifact::UnknownName),
    /// The model computes something else.
    #[error("the model computes {found}, this needs {needed}")]
    WrongTask {
        /// What the model computes.
        found: Task,
        /// What is needed.
        needed: Task,
    },
    /// The artifact has no tokenizer.
    #[error(
        "the model has no tokenizer.json, so it takes token ids only\n  put tokenizer.json into the checkpoint and export again"
    )]
    NoTokenizer,
    /// An option has an invalid value.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        found: String,
        /// The valid values.
        expected: &'static str,
    },
}

fn gigabytes(bytes: u64) -> String {
    const GIGABYTE: u64 = 1_000_000_000;
    match bytes {
        0..GIGABYTE => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Fails for an invalid value of an option. NaN is invalid under every rule, because it fails every comparison.
pub(crate) fn check(
    option: &'static str,
    value: impl ToString,
    is_valid: bool,
    expected: &'static str,
) -> Result<()> {
    if is_valid { Ok(()) } else { Err(Error::Option { option, found: value.to_string(), expected }) }
}

pub(crate) fn at_least_one(option: &'static str, value: usize) -> Result<()> {
    check(option, value, value >= 1, "at least 1")
}
