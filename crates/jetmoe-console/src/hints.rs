//! What to type after an error. Libraries say what is wrong and name no flag and no command; the advice that only a
//! command line can follow is here, one function per library.

use std::error::Error;

use jetmoe_rt::{BackendError, ExecutionProvider, OnnxError, TextError};

use crate::causes;

/// Finds what to type after an error.
pub type Hint = fn(&(dyn Error + 'static)) -> Option<String>;

/// What to type after an error of a library, or after one that such an error caused.
pub fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error).find_map(|cause| {
        None.or_else(|| cause.downcast_ref().and_then(after_conformance))
            .or_else(|| cause.downcast_ref().and_then(after_rt))
            .or_else(|| cause.downcast_ref().and_then(after_backend))
            .or_else(|| cause.downcast_ref().and_then(after_graph))
            .or_else(|| cause.downcast_ref().and_then(after_onnx))
            .or_else(|| cause.downcast_ref().and_then(after_artifact))
    })
}

// A transparent variant hides the error in it from `causes`, so it passes the error on.

fn after_conformance(error: &jetmoe_conformance::Error) -> Option<String> {
    use jetmoe_conformance::Error;
    match error {
        Error::Model(error) => hint(error),
        Error::Artifact(error) => hint(error),
        Error::Graph(error) => hint(error),
        Error::GoldenOfOtherWeights { .. } => text(
            "leave --golden out to compare with the reference; `jetmoe eval --baseline` measures the quantization error",
        ),
        Error::ReferenceMemory { .. } => {
            text("`jetmoe eval --baseline` compares two artifacts without the reference")
        }
        Error::NoCheckpoint { .. } => text("name the checkpoint with --checkpoint"),
        _ => None,
    }
}

fn after_rt(error: &jetmoe_rt::Error) -> Option<String> {
    use jetmoe_rt::Error;
    match error {
        Error::Backend(error) => hint(error),
        Error::Artifact(error) => hint(error),
        Error::Graph(error) => hint(error),
        Error::Text(TextError::SpecialTokenInMessage { .. }) => {
            text("the option is --control-tokens-in-text")
        }
        Error::TextTooLong { .. } => text("the option is --max-text-bytes"),
        Error::CpuOnly { .. } => text("choose --backend ort for that device, or --device cpu"),
        Error::Unsupported { .. } => text(
            "choose another graph or backend, or export one: jetmoe-export MODEL --output DIR --precision PRECISION",
        ),
        Error::Memory { device: Some(_), .. } => text(
            "export a smaller precision, such as --precision q4f16; raise the option memory_limit if you set it; or try all the \
             same with --no-memory-check",
        ),
        Error::Memory { .. } => text(
            "export a smaller precision, such as --precision q4; keep 16-bit weights in the file with --low-memory; \
             or try all the same with --no-memory-check",
        ),
        _ => None,
    }
}

fn after_backend(error: &BackendError) -> Option<String> {
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

/// The command that fetches a libonnxruntime with an execution provider.
pub fn setup_command(provider: Option<ExecutionProvider>) -> &'static str {
    match provider {
        None => "cargo xtask setup",
        Some(ExecutionProvider::Cuda | ExecutionProvider::TensorRt) => "cargo xtask setup --gpu",
        Some(ExecutionProvider::OpenVino) => "cargo xtask setup --openvino",
    }
}

fn after_graph(error: &jetmoe_graph::Error) -> Option<String> {
    match error {
        jetmoe_graph::Error::Artifact(error) => hint(error),
        jetmoe_graph::Error::NotRepresentable { .. } => {
            text("`--override f32:mlp` stores the MLP experts in another format, for instance")
        }
        _ => None,
    }
}

fn after_onnx(error: &OnnxError) -> Option<String> {
    match error {
        OnnxError::Unexpected { .. } => text(
            "or load it with --trust-graph, if you trust whoever made it: it can take any time and memory, or end the process",
        ),
        _ => None,
    }
}

fn after_artifact(error: &jetmoe_artifact::Error) -> Option<String> {
    match error {
        jetmoe_artifact::Error::NotAnArtifact { .. } => {
            text("make an artifact with: jetmoe-export MODEL --output DIR")
        }
        jetmoe_artifact::Error::Edited { path } => {
            let folder = path.parent().unwrap_or(path);
            Some(format!("with: jetmoe accept-edits {}", folder.display()))
        }
        _ => None,
    }
}

fn text(hint: &str) -> Option<String> {
    Some(hint.to_owned())
}
