//! What a user can do about an error, in the words of this command's flags.

use jetmoe_conformance::Error as ConformanceError;
use jetmoe_rt::{BackendError, Error, ExecutionProvider};

/// Adds a hint to an error, where there is one.
pub(crate) fn with_hint(error: anyhow::Error) -> anyhow::Error {
    let hint = error.chain().find_map(|cause| {
        let conformance = cause.downcast_ref().and_then(of_conformance);
        let model = cause.downcast_ref().and_then(of_model);
        conformance.or(model).or_else(|| cause.downcast_ref().and_then(of_backend))
    });
    match hint {
        // the first line of a message says what is wrong, the others what to do
        Some(hint) => error.context(format!("\n  {hint}")),
        None => error,
    }
}

fn of_conformance(error: &ConformanceError) -> Option<String> {
    match error {
        ConformanceError::Model(error) => of_model(error),
        ConformanceError::NoCheckpoint { .. } => Some("name it with --checkpoint".to_owned()),
        ConformanceError::GoldenOfOtherWeights { .. } => {
            Some("leave --golden out; `jetmoe eval --baseline` measures what quantization costs".to_owned())
        }
        _ => None,
    }
}

fn of_model(error: &Error) -> Option<String> {
    match error {
        Error::Backend(error) => of_backend(error),
        Error::CpuOnly { .. } => Some("choose --backend ort for that device, or --device cpu".to_owned()),
        Error::Unsupported { .. } => Some(
            "choose another graph or backend, or export one: \
             jetmoe-export MODEL --output DIR --precision PRECISION"
                .to_owned(),
        ),
        Error::Memory { .. } => Some(
            "export a smaller precision, such as --precision q4; keep 16-bit weights in the file with --low-memory; \
             or try all the same with --no-memory-check"
                .to_owned(),
        ),
        _ => None,
    }
}

fn of_backend(error: &BackendError) -> Option<String> {
    match error {
        BackendError::LibraryNotFound { provider, .. } => {
            Some(format!("`{}` fetches one", setup_command(*provider)))
        }
        BackendError::Device { provider, .. } => Some(format!(
            "it needs {}, and a libonnxruntime with that provider: `{}` or `pip install {}`; or choose --device cpu",
            provider.needs(),
            setup_command(Some(*provider)),
            provider.package()
        )),
        _ => None,
    }
}

/// The workspace's command that fetches a libonnxruntime with an execution provider.
pub(crate) fn setup_command(provider: Option<ExecutionProvider>) -> &'static str {
    match provider {
        None => "cargo xtask setup",
        Some(ExecutionProvider::Cuda | ExecutionProvider::TensorRt) => "cargo xtask setup --gpu",
        Some(ExecutionProvider::OpenVino) => "cargo xtask setup --openvino",
    }
}
