use std::path::PathBuf;

use jetmoe_artifact::{OutputName, Precision, Profile, Task};

use crate::{Provider, Runtime};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// A file of weights cannot be mapped.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// The tokenizer or the chat template cannot be used.
    #[error(transparent)]
    Text(#[from] jetmoe_text::Error),
    /// The runtime was not compiled in.
    #[error(
        "this build has no {runtime}\n  build with the cargo feature `{runtime}`, or choose another backend"
    )]
    NotBuiltIn {
        /// The runtime that was asked for.
        runtime: Runtime,
    },
    /// The runtime cannot run such graphs.
    #[error("{runtime} cannot run {precision} graphs of the {profile} profile\n  \
             it runs {}; choose another graph or backend, or export one: \
             jetmoe-export MODEL --output DIR --precision PRECISION", abilities(*runtime))]
    CannotRun {
        /// Which runtime.
        runtime: Runtime,
        /// Precision of the graph.
        precision: Precision,
        /// Profile of the graph.
        profile: Profile,
    },
    /// The graph will not fit in memory.
    #[error("{} takes about {} of memory in {runtime}, and {} are left\n  \
             export a smaller precision, such as --precision q4; keep 16-bit weights in the file with --low-memory; \
             or try all the same with --no-memory-check", graph.display(), gigabytes(*needed), gigabytes(*available))]
    Memory {
        /// Which runtime.
        runtime: Runtime,
        /// The graph file.
        graph: PathBuf,
        /// What it takes, in bytes.
        needed: u64,
        /// What is left, in bytes.
        available: u64,
    },
    /// No libonnxruntime was found.
    #[error("{}; looked at:{}\n  {}", no_library(*provider), lines(searched), library_advice(*provider))]
    LibraryNotFound {
        /// The execution provider that it must have, if any.
        provider: Option<Provider>,
        /// Every place that was looked at, with what was found there.
        searched: Vec<String>,
    },
    /// A library cannot be used as libonnxruntime.
    #[error("{} cannot be used as ONNX Runtime: {message}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A device cannot be had.
    #[error("the device {device} cannot be used: {message} ({})\n  {advice}", library.display())]
    Device {
        /// The device that was asked for.
        device: String,
        /// The libonnxruntime that was asked for it.
        library: PathBuf,
        /// What it said.
        message: String,
        /// What to do about it.
        advice: String,
    },
    /// The device cannot run such graphs.
    #[error(
        "the device {device} cannot run {precision} graphs of the {profile} profile\n  \
             choose another graph or device{}",
        elsewhere(*profile)
    )]
    DeviceCannotRun {
        /// The device that was asked for.
        device: String,
        /// Precision of the graph.
        precision: Precision,
        /// Profile of the graph.
        profile: Profile,
    },
    /// A device of another runtime.
    #[error(
        "{runtime} computes on the CPU only, and the device is {device}\n  \
             choose the backend ort for that device, or the device cpu"
    )]
    DeviceOfOrt {
        /// The runtime that was asked for.
        runtime: Runtime,
        /// The device that was asked for.
        device: String,
    },
    /// An option that a device does not have, or not with that value.
    #[error("the provider option {option} cannot be used with {device}\n  expected {expected}")]
    ProviderOption {
        /// The option, with its value.
        option: String,
        /// The device.
        device: String,
        /// What it may be, in words.
        expected: String,
    },
    /// The runtime refused the graph.
    #[error("{runtime} cannot load {}: {message}", graph.display())]
    Load {
        /// Which runtime.
        runtime: Runtime,
        /// The graph file.
        graph: PathBuf,
        /// What it said.
        message: String,
    },
    /// The runtime failed while computing.
    #[error("{runtime} failed: {message}")]
    Run {
        /// Runtime, or the name of a backend outside this crate.
        runtime: String,
        /// What it said.
        message: String,
    },
    /// A trace cannot be written.
    #[error("cannot write the trace {}: {source}", path.display())]
    Trace {
        /// Where it should go.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// A prompt holds no token.
    #[error("prompt {index} is empty; give at least one token")]
    EmptyPrompt {
        /// Which prompt of the batch, from 0.
        index: usize,
    },
    /// A sequence that the batch does not have.
    #[error("there is no sequence {sequence} in a batch of {sequences}; they are counted from 0")]
    NoSequence {
        /// Which one was asked for.
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
        "{tokens} tokens are more than the {limit} positions of the model; shorten the prompt or ask for fewer new tokens"
    )]
    TooLong {
        /// Prompt and continuation so far.
        tokens: usize,
        /// `max_position_embeddings` of the configuration.
        limit: usize,
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
    /// A tensor has another shape than it must have.
    #[error("{tensor} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What it must be.
        expected: Vec<usize>,
        /// What it is.
        found: Vec<usize>,
    },
    /// The graph does not have an output.
    #[error("the graph has no output {name}; it has: {}", available.join(", "))]
    MissingOutput {
        /// What was asked for.
        name: OutputName,
        /// What there is.
        available: Vec<String>,
    },
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
    /// An option has a value that makes no sense.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

fn no_library(provider: Option<Provider>) -> String {
    match provider {
        None => "no libonnxruntime found".to_owned(),
        Some(provider) => format!("no libonnxruntime with {} found", provider.onnxruntime_name()),
    }
}

fn library_advice(provider: Option<Provider>) -> String {
    let (setup, package) = match provider {
        None => ("cargo xtask setup", "onnxruntime"),
        Some(provider) => (provider.setup(), provider.package()),
    };
    format!("run `{setup}`, or `pip install {package}`, or set ORT_DYLIB_PATH to the library")
}

fn lines(searched: &[String]) -> String {
    searched.iter().map(|place| format!("\n  - {place}")).collect()
}

/// What stands in for a graph that a device cannot run.
fn elsewhere(profile: Profile) -> &'static str {
    match profile {
        Profile::Native => {
            "; this profile's operators compute on the CPU, without a device or with --device cpu"
        }
        _ => "; a float32 graph with --provider-option precision=bf16 computes in bfloat16",
    }
}

fn abilities(runtime: Runtime) -> String {
    let profiles = runtime.profiles().iter().map(|profile| {
        let precisions = Precision::ALL.iter().filter(|precision| runtime.runs(**precision, *profile));
        let precisions: Vec<String> = precisions.map(Precision::to_string).collect();
        format!("{} in {profile}", precisions.join(", "))
    });
    profiles.collect::<Vec<_>>().join("; ")
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
