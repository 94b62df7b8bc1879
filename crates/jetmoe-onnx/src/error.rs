//! The error of this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an ONNX file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file that is longer than any graph.
    #[error("{} holds {found} bytes, and a graph has at most {limit}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// A file whose messages take too much memory.
    #[error("{} consists of messages that take more than {limit} bytes of memory", path.display())]
    TooManyMessages {
        /// The file.
        path: PathBuf,
        /// The most memory that messages may take, in addition to the bytes of the file.
        limit: u64,
    },
    /// A file is not an ONNX model.
    #[error("{} is no ONNX model: {}", path.display(), source.as_ref().map_or("it holds no graph".to_owned(), |source| source.to_string()))]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// The decoder's error; `None` if the file decodes but has no graph.
        source: Option<prost::DecodeError>,
    },
    /// A graph that no exporter writes for this artifact.
    #[error("{}, {place}: {problem}\n  export again", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The node, the tensor, the input or the output.
        place: String,
        /// What it is or has, and what it must be.
        problem: String,
    },
    /// A graph without a value that exported graphs have.
    #[error("{} cannot be observed: it has {value}\n  export again", path.display())]
    NotObservable {
        /// The file.
        path: PathBuf,
        /// The value that it lacks, in words.
        value: String,
    },
}
