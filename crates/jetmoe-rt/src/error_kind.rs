//! What kind of error it is, for a service that has to decide how to answer.

use std::io;

use jetmoe_artifact::Error as ArtifactError;
use jetmoe_backend::{Error as BackendError, KernelsError};
use jetmoe_checkpoint::Error as CheckpointError;
use jetmoe_onnx::Error as OnnxError;
use jetmoe_text::Error as TextError;

use crate::Error;

/// What kind of error it is: whose fault, and whether the same call can succeed later. `Display` and `FromStr` use a name
/// in kebab case, such as `invalid-input`, which a service can pass on.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's mistake: an option, a prompt or a batch that is not valid. The same call fails again.
    InvalidInput,
    /// The prompt has more tokens than the model has positions, or more bytes than are encoded, or the chat template takes too
    /// much for it. A shorter one can succeed.
    TooLong,
    /// The model, the backend, the build or the machine does not have what was requested: a task, a tokenizer, a precision,
    /// a device, a shared library.
    Unsupported,
    /// There is no such folder, graph or backend.
    NotFound,
    /// Too little memory is free. The same call can succeed later.
    Busy,
    /// The caller cancelled the call.
    Cancelled,
    /// A file of the model is missing, damaged or not what the manifest says, or the backend rejects the graph.
    InvalidModel,
    /// The backend failed while it computed, or computed NaN.
    Backend,
    /// The operating system failed to read or write a file.
    Io,
    /// The template engine failed, or the operating system has no thread for it.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The HTTP status for it. [`ErrorKind::Cancelled`] has 499, which proxies use for a client that closed the connection.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorKind::InvalidInput | ErrorKind::Unsupported => 400,
            ErrorKind::NotFound => 404,
            ErrorKind::TooLong => 413,
            ErrorKind::Cancelled => 499,
            ErrorKind::InvalidModel | ErrorKind::Backend | ErrorKind::Io | ErrorKind::Internal => 500,
            ErrorKind::Busy => 503,
        }
    }
}

impl Error {
    /// What kind of error it is. Errors of the artifact, the tokenizer and the backend have the kind of their cause.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Backend(error) => of_backend(error),
            Error::Artifact(error) => of_artifact(error),
            Error::Graph(error) => of_onnx(error),
            Error::Text(error) => of_text(error),
            Error::UnknownBackend { .. } => ErrorKind::NotFound,
            Error::NotBuiltIn { .. }
            | Error::NoBackend { .. }
            | Error::CpuOnly { .. }
            | Error::Unsupported { .. }
            | Error::NoCache
            | Error::MissingOutput { .. }
            | Error::OtherOutput { .. }
            | Error::WrongTask { .. }
            | Error::NoTokenizer => ErrorKind::Unsupported,
            Error::Memory { .. } => ErrorKind::Busy,
            Error::Cancelled => ErrorKind::Cancelled,
            Error::Logits { .. } => ErrorKind::Backend,
            Error::OutputShape { .. } => ErrorKind::InvalidModel,
            Error::TooLong { .. } | Error::TextTooLong { .. } | Error::MaxLength { .. } => ErrorKind::TooLong,
            Error::EmptyPrompt { .. }
            | Error::UnknownName(_)
            | Error::EmptyContinuation { .. }
            | Error::NoSequence { .. }
            | Error::TokenOutOfRange { .. }
            | Error::NoTokenLeft { .. }
            | Error::Truncation { .. }
            | Error::Shape { .. }
            | Error::Option { .. } => ErrorKind::InvalidInput,
        }
    }
}

// The errors of other crates are `#[non_exhaustive]`. A variant that is not listed has the kind of most errors of its
// crate, which is never the caller's mistake.

fn of_artifact(error: &ArtifactError) -> ErrorKind {
    match error {
        ArtifactError::NotFound { .. } | ArtifactError::NoSuchGraph { .. } => ErrorKind::NotFound,
        ArtifactError::UnknownOutput { .. } => ErrorKind::InvalidInput,
        ArtifactError::Io { source, .. } => of_io(source),
        ArtifactError::Checkpoint(error) => of_checkpoint(error),
        _ => ErrorKind::InvalidModel,
    }
}

fn of_checkpoint(error: &CheckpointError) -> ErrorKind {
    match error {
        CheckpointError::NotFound { .. } => ErrorKind::NotFound,
        CheckpointError::Io { source, .. } => of_io(source),
        CheckpointError::DiskSpace { .. } => ErrorKind::Io,
        _ => ErrorKind::InvalidModel,
    }
}

fn of_onnx(error: &OnnxError) -> ErrorKind {
    match error {
        OnnxError::Io { source, .. } => of_io(source),
        _ => ErrorKind::InvalidModel,
    }
}

fn of_text(error: &TextError) -> ErrorKind {
    match error {
        TextError::File(error) => of_checkpoint(error),
        TextError::Encode { .. }
        | TextError::Conversation { .. }
        | TextError::TooDeep { .. }
        | TextError::SpecialTokenInMessage { .. }
        | TextError::Noncharacter
        | TextError::ChatTemplateName { .. }
        | TextError::EmptyStopString => ErrorKind::InvalidInput,
        // limits of the template itself are other errors
        TextError::ChatTemplateLimit { .. } => ErrorKind::TooLong,
        TextError::ChatTemplateEngine { .. } => ErrorKind::Internal,
        TextError::NoChatTemplate => ErrorKind::Unsupported,
        _ => ErrorKind::InvalidModel,
    }
}

fn of_backend(error: &BackendError) -> ErrorKind {
    match error {
        BackendError::Load { .. }
        | BackendError::Contract { .. }
        | BackendError::Operator { .. }
        | BackendError::Format(_) => ErrorKind::InvalidModel,
        BackendError::Kernels(KernelsError::UnsupportedIsa { .. }) => ErrorKind::Unsupported,
        BackendError::Kernels(_) => ErrorKind::InvalidModel,
        BackendError::LibraryNotFound { .. } | BackendError::Library { .. } | BackendError::Device { .. } => {
            ErrorKind::Unsupported
        }
        BackendError::Syntax { .. } | BackendError::ProviderOption { .. } | BackendError::Option { .. } => {
            ErrorKind::InvalidInput
        }
        BackendError::Trace { source, .. } => of_io(source),
        BackendError::Cancelled { .. } => ErrorKind::Cancelled,
        _ => ErrorKind::Backend,
    }
}

fn of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    }
}

#[cfg(test)]
mod tests;
