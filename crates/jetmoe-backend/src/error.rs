//! Why a backend could not load or run a graph.

use std::path::PathBuf;

use crate::ExecutionProvider;

/// Result of this crate and of the backends.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a crate underneath.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a backend could not load or run a graph. What a crate underneath reported is the [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend refused the graph.
    #[error("{backend} cannot load {}", graph.display())]
    Load {
        /// The backend.
        backend: &'static str,
        /// The graph file.
        graph: PathBuf,
        /// What it reported.
        source: BoxError,
    },
    /// The backend failed while computing.
    #[error("{backend} failed")]
    Run {
        /// The backend.
        backend: &'static str,
        /// What it reported.
        source: BoxError,
    },
    /// The inputs of a step do not continue the cache.
    #[error("a step of {rows} sequences after {cached:?} tokens does not continue a cache of {cache:?}")]
    Continuation {
        /// Sequences of the step.
        rows: usize,
        /// Tokens of each before the step by the attention mask; `None` if the mask has fewer columns than the step has tokens.
        cached: Option<usize>,
        /// Sequences and tokens of the cache.
        cache: [usize; 2],
    },
    /// The step was cancelled by its [`CancellationToken`](crate::CancellationToken).
    #[error("{backend} was cancelled")]
    Cancelled {
        /// The backend.
        backend: &'static str,
    },
    /// A graph has other inputs or outputs than its artifact says.
    #[error("the graph has {problem}, unlike what jetmoe.json and config.json say\n  export again")]
    Contract {
        /// What is missing and what is unknown.
        problem: String,
    },
    /// A node of a custom operator, or what it is given, does not fit the operator.
    #[error("the operator {operator}: {problem}")]
    Operator {
        /// Name of the operator.
        operator: String,
        /// What does not fit.
        problem: String,
    },
    /// A node of a custom operator, or a weight that it reads, is not as its schema says.
    #[error(transparent)]
    Format(#[from] jetmoe_format::Error),
    /// The kernels cannot compute this.
    #[error(transparent)]
    Kernels(#[from] jetmoe_kernels::Error),
    /// No libonnxruntime was found.
    #[error(
        "{}; looked at:{}\n  `pip install {}` brings one; or set ORT_DYLIB_PATH to the library",
        no_library(*provider), lines(searched), provider.map_or("onnxruntime", ExecutionProvider::package)
    )]
    LibraryNotFound {
        /// The execution provider that it must have, if any.
        provider: Option<ExecutionProvider>,
        /// Every searched location, with the result.
        searched: Vec<String>,
    },
    /// A library cannot be used as libonnxruntime.
    #[error("{} cannot be used as ONNX Runtime{}", path.display(), advice.map(|advice| format!("\n  {advice}")).unwrap_or_default())]
    Library {
        /// The library.
        path: PathBuf,
        /// What to do, where one library was named.
        advice: Option<&'static str>,
        /// What is wrong with it.
        source: BoxError,
    },
    /// A device is not usable.
    #[error("the device {device} cannot be used: {message} ({})", library.display())]
    Device {
        /// The requested device.
        device: String,
        /// Its execution provider.
        provider: ExecutionProvider,
        /// The libonnxruntime that was tried.
        library: PathBuf,
        /// What it reported, on one line.
        message: String,
    },
    /// A text that is not what it should be.
    #[error("unknown {what} {text:?}; expected {expected}")]
    Syntax {
        /// The text.
        text: String,
        /// What it should be.
        what: &'static str,
        /// The forms that are known.
        expected: &'static str,
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
    /// A trace cannot be written.
    #[error("cannot write the trace {}", path.display())]
    Trace {
        /// Its file.
        path: PathBuf,
        /// The error that the file system reported.
        source: std::io::Error,
    },
}

fn no_library(provider: Option<ExecutionProvider>) -> String {
    match provider {
        None => "no libonnxruntime found".to_owned(),
        Some(provider) => format!("no libonnxruntime with {} found", provider.onnxruntime_name()),
    }
}

fn lines(searched: &[String]) -> String {
    searched.iter().map(|place| format!("\n  - {place}")).collect()
}
