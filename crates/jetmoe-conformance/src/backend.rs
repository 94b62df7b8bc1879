//! Names of backends, the Candle reference included.

use std::fmt;
use std::str::FromStr;

use jetmoe_artifact::Artifact;
use jetmoe_checkpoint::Checkpoint;
use jetmoe_rt::{BACKEND_NAMES, Backend, LoadOptions, Model, backend, backends};

use crate::reference::NAME;
use crate::{Error, ReferenceBackend, Result};

/// The name of a backend of `jetmoe-rt`, or of the Candle reference, which runs a checkpoint and not an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendName(&'static str);

impl BackendName {
    /// The Candle reference.
    pub const REFERENCE: BackendName = BackendName(NAME);

    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The backends of this build, the reference last.
    pub fn built_in() -> Vec<BackendName> {
        let names = backends().iter().map(|backend| BackendName(backend.name()));
        names.chain([Self::REFERENCE]).collect()
    }

    /// The backend of `jetmoe-rt` that has this name.
    ///
    /// # Errors
    /// A backend that is not built in; the reference, which is a value only with a checkpoint.
    pub fn backend(self) -> Result<&'static dyn Backend> {
        Ok(backend(self.0)?)
    }
}

/// Loads a model into a backend. The reference runs the checkpoint, the others the artifact.
///
/// # Errors
/// [`Error::NoCheckpoint`] for the reference without a checkpoint, a backend that is not built in, or what it refuses.
pub fn load(
    name: BackendName,
    artifact: &Artifact,
    checkpoint: Option<&Checkpoint>,
    options: &LoadOptions,
) -> Result<Model> {
    if name == BackendName::REFERENCE {
        let source = || artifact.manifest().checkpoint.source.clone();
        let checkpoint = checkpoint.ok_or_else(|| Error::NoCheckpoint { source_name: Some(source()) })?;
        return Ok(Model::load_into(&ReferenceBackend::new(checkpoint), artifact, options)?);
    }
    let options = options.clone().with_backend(name.backend()?);
    Ok(Model::load_artifact(artifact, &options)?)
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for BackendName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = BACKEND_NAMES.iter().chain([&Self::REFERENCE.0]);
        let found = known.copied().find(|known| *known == name);
        found.map(BackendName).ok_or_else(|| Error::UnknownBackend { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests;
