use std::fmt;
use std::str::FromStr;

use jetmoe_artifact::Artifact;
use jetmoe_checkpoint::Checkpoint;
use jetmoe_rt::{LoadOptions, Model, Runtime};

use crate::{Error, Result, reference_model};

/// Something that can run a model: a runtime of `jetmoe-rt`, or the Candle reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// ONNX Runtime.
    Ort,
    /// tract.
    Tract,
    /// The Candle reference; it runs the checkpoint and not the artifact.
    Reference,
}

impl Backend {
    /// Every backend, built in or not.
    pub const ALL: &'static [Backend] = &[Backend::Ort, Backend::Tract, Backend::Reference];

    /// The runtime, unless it is the reference.
    pub fn runtime(self) -> Option<Runtime> {
        match self {
            Backend::Ort => Some(Runtime::Ort),
            Backend::Tract => Some(Runtime::Tract),
            Backend::Reference => None,
        }
    }

    /// The backends of this build.
    pub fn built_in() -> Vec<Backend> {
        Self::ALL.iter().copied().filter(|backend| backend.is_built_in()).collect()
    }

    /// Whether this build has it.
    pub fn is_built_in(self) -> bool {
        self.runtime().is_none_or(Runtime::is_built_in)
    }
}

/// Loads a model into a backend. The reference needs the checkpoint, the runtimes the artifact.
///
/// # Errors
/// [`Error::NoCheckpoint`] for the reference without a checkpoint, or what the backend refuses.
pub fn load(
    backend: Backend,
    artifact: &Artifact,
    checkpoint: Option<&Checkpoint>,
    options: &LoadOptions,
) -> Result<Model> {
    match backend.runtime() {
        Some(runtime) => {
            let options = LoadOptions { runtime: Some(runtime), ..options.clone() };
            Ok(Model::load_artifact(artifact, &options)?)
        }
        None => {
            let source = &artifact.manifest().checkpoint.source;
            let checkpoint =
                checkpoint.ok_or_else(|| Error::NoCheckpoint { source_name: Some(source.clone()) })?;
            let task = artifact.graph(options.precision, options.profile)?.task;
            reference_model(checkpoint, task)
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Ort => "ort",
            Backend::Tract => "tract",
            Backend::Reference => "reference",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "ort" => Ok(Backend::Ort),
            "tract" => Ok(Backend::Tract),
            "reference" => Ok(Backend::Reference),
            other => Err(format!("unknown backend {other:?}; known: ort, tract, reference")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_name_reads_back_as_its_backend_and_any_other_is_refused() {
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse(), Ok(*backend));
        }
        assert_eq!(
            "onnx".parse::<Backend>(),
            Err("unknown backend \"onnx\"; known: ort, tract, reference".to_owned())
        );
    }

    #[test]
    fn the_reference_is_in_every_build() {
        assert!(Backend::built_in().contains(&Backend::Reference));
        assert_eq!(Backend::built_in().contains(&Backend::Ort), cfg!(feature = "ort"));
        assert_eq!(Backend::built_in().contains(&Backend::Tract), cfg!(feature = "tract"));
    }

    #[test]
    fn the_reference_without_a_checkpoint_says_where_the_artifact_came_from() {
        let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jetmoe-rt/tests/fixtures/toy");
        let artifact = Artifact::open(toy).unwrap();
        let error = load(Backend::Reference, &artifact, None, &LoadOptions::default()).unwrap_err();
        let source = &artifact.manifest().checkpoint.source;
        assert!(
            matches!(&error, Error::NoCheckpoint { source_name } if source_name.as_ref() == Some(source))
        );
        assert!(error.to_string().contains(source), "{error}");
    }
}
