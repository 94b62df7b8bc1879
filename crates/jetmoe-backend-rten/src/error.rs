//! Why a graph cannot be loaded into rten, or not run.

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The source of what a caller of this crate gets as [`jetmoe_backend::Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file without a graph.
    #[error("the file holds no graph")]
    NoGraph,
    /// A weight is not stored as it should be.
    #[error("the weight {name} {problem}")]
    Weight {
        /// Name of its tensor, or of the node that reads it.
        name: String,
        /// What is wrong, as a verb with its object.
        problem: String,
    },
    /// rten has no tensor of a name that the graph should have.
    #[error("rten has no value {name}")]
    NoValue {
        /// The name.
        name: String,
    },
    /// rten panicked.
    #[error("rten panicked: {message}")]
    Panic {
        /// The panic's message.
        message: String,
    },
}

impl Error {
    /// A weight and what is wrong with it.
    pub(crate) fn weight(name: &str, problem: impl Into<String>) -> Self {
        Error::Weight { name: name.to_owned(), problem: problem.into() }
    }
}
