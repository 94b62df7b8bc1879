//! The error of this crate.

use jetmoe_artifact::{ObservedValue, OutputName};
use jetmoe_rt::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be observed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be run.
    #[error(transparent)]
    Model(#[from] jetmoe_rt::Error),
    /// The tokenizer refused a text.
    #[error(transparent)]
    Text(#[from] jetmoe_rt::TextError),
    /// The model was loaded without the outputs.
    #[error(
        "{backend} does not return the {value}\n  load an artifact into another backend than the reference, with the \
         observed value {value}"
    )]
    NotObserved {
        /// The backend.
        backend: String,
        /// The value.
        value: ObservedValue,
    },
    /// The backend returned an output of another shape or with impossible values.
    #[error("{backend} returned {name} {found:?}, expected {expected}")]
    Output {
        /// The backend.
        backend: String,
        /// The output.
        name: OutputName,
        /// Its shape, or a value of it.
        found: Vec<f64>,
        /// What it must be.
        expected: String,
    },
    /// Steps that the tokens cannot be split into.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What it must be.
        expected: String,
    },
    /// Two routings of models that have other routers.
    #[error("the first model has {first}, and the second has {second}: they cannot be compared")]
    OtherRouters {
        /// The routers of the first one, in words.
        first: String,
        /// Those of the second one.
        second: String,
    },
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Model(error) => error.kind(),
            Error::Text(_) | Error::Option { .. } | Error::OtherRouters { .. } => ErrorKind::InvalidInput,
            Error::NotObserved { .. } => ErrorKind::Unsupported,
            Error::Output { .. } => ErrorKind::Backend,
        }
    }
}
