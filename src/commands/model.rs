//! The model argument: an artifact, a checkpoint, or a hub id, and the backend to run it in.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use directories::ProjectDirs;
use jetmoe_artifact::{Artifact, OptionalOutput, Precision, Profile, Task};
use jetmoe_checkpoint::{Checkpoint, HubOptions, ModelSource};
use jetmoe_conformance::{Backend, load, reference_model};
use jetmoe_export::{ExportOptions, export};
use jetmoe_graph::Opset;
use jetmoe_rt::{LoadOptions, Model};

use super::note;

/// Which model, and how it is loaded.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// Artifact made by jetmoe-export, checkpoint folder, or hub id (owner/name).
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// Branch, tag or commit of a hub id.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Threads of ONNX Runtime; all cores by default. tract computes in one thread.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The libonnxruntime to load, instead of the one that is found (see `jetmoe devices`).
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

/// What the model argument turned out to be.
#[derive(Debug)]
pub(crate) enum Opened {
    /// An artifact.
    Artifact(Box<Artifact>),
    /// A checkpoint, not exported yet.
    Checkpoint(Box<Checkpoint>),
}

impl ModelArguments {
    /// Finds out what the argument is; a hub id is downloaded first.
    pub(crate) fn open(&self) -> anyhow::Result<Opened> {
        let options = HubOptions { revision: self.revision.clone(), progress: true, ..HubOptions::default() };
        let folder = ModelSource::parse(&self.model)?.resolve(&options)?;
        if Artifact::is_artifact(&folder) {
            Ok(Opened::Artifact(Box::new(Artifact::open(&folder)?)))
        } else {
            Ok(Opened::Checkpoint(Box::new(Checkpoint::open(&folder)?)))
        }
    }

    /// Opens the model and loads it: an artifact into ONNX Runtime, or tract where there is none; a checkpoint into the
    /// reference, or, when another backend is asked for, exported to the cache first.
    pub(crate) fn load(&self, backend: Option<Backend>) -> anyhow::Result<Model> {
        match (self.open()?, backend) {
            (Opened::Artifact(artifact), None) => Ok(Model::load_artifact(&artifact, &self.load_options())?),
            (Opened::Artifact(artifact), Some(backend)) => {
                let checkpoint = match backend {
                    Backend::Reference => Some(checkpoint_of(&artifact, None)?),
                    Backend::Ort | Backend::Tract => None,
                };
                self.load_into(backend, &artifact, checkpoint.as_ref())
            }
            (Opened::Checkpoint(checkpoint), None) => {
                note(&format!(
                    "{} is a checkpoint: running it in the Candle reference; for speed, export it: \
                     jetmoe-export {} --output DIR",
                    self.model, self.model
                ));
                load_reference(&checkpoint)
            }
            (Opened::Checkpoint(checkpoint), Some(Backend::Reference)) => load_reference(&checkpoint),
            (Opened::Checkpoint(checkpoint), Some(backend)) => {
                let artifact = self.export_to_cache(&checkpoint)?;
                self.load_into(backend, &artifact, Some(&checkpoint))
            }
        }
    }

    /// Loads an opened model into one backend.
    pub(crate) fn load_into(
        &self,
        backend: Backend,
        artifact: &Artifact,
        checkpoint: Option<&Checkpoint>,
    ) -> anyhow::Result<Model> {
        Ok(load(backend, artifact, checkpoint, &self.load_options())?)
    }

    /// The artifact of a checkpoint in this user's cache, exported with every output when it is not there yet.
    pub(crate) fn export_to_cache(&self, checkpoint: &Checkpoint) -> anyhow::Result<Artifact> {
        let bar = jetmoe_export::byte_bar("hashing", checkpoint.tensors().size_in_bytes());
        let digest = checkpoint.digest(&|bytes| bar.inc(bytes))?;
        bar.finish_and_clear();
        let folder = cache_folder()?.join("artifacts").join(&digest.to_string()[..16]);
        let task = Task::of_architecture(checkpoint.config().architecture);
        if let Ok(artifact) = Artifact::open(&folder)
            && artifact.manifest().checkpoint.digest == digest
        {
            return Ok(artifact);
        }
        note(&format!("exporting {} to {}", self.model, folder.display()));
        let options = ExportOptions {
            source: ModelSource::parse(&self.model)?.permanent_name(),
            output: folder.clone(),
            task: Some(task),
            precision: Precision::F32,
            profile: Profile::Portable,
            opset: Opset::default(),
            optional_outputs: OptionalOutput::ALL.iter().copied().collect(),
            // the folder is ours, and what lies there is damaged or by another version
            force: true,
        };
        export(checkpoint, &options)?;
        Ok(Artifact::open(&folder)?)
    }

    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            threads: self.threads,
            onnxruntime_library: self.onnxruntime.clone(),
            ..LoadOptions::default()
        }
    }
}

/// The checkpoint that an artifact was made from: the one that is named, else the one that the manifest remembers. It
/// must be the very same.
pub(crate) fn checkpoint_of(artifact: &Artifact, named: Option<&str>) -> anyhow::Result<Checkpoint> {
    let remembered = &artifact.manifest().checkpoint;
    let source = named.unwrap_or(&remembered.source);
    let advice = "name the checkpoint with --checkpoint";
    let options = HubOptions { progress: true, ..HubOptions::default() };
    let folder = ModelSource::parse(source)
        .and_then(|source| source.resolve(&options))
        .with_context(|| format!("the artifact was made from {source}, which cannot be opened; {advice}"))?;
    let checkpoint = Checkpoint::open(&folder)?;
    let bar = jetmoe_export::byte_bar("hashing", checkpoint.tensors().size_in_bytes());
    let digest = checkpoint.digest(&|bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    anyhow::ensure!(
        digest == remembered.digest,
        "{} is not the checkpoint that the artifact was made from: digest {digest}, the manifest says {}\n  {advice}, \
         or export again",
        folder.display(),
        remembered.digest
    );
    Ok(checkpoint)
}

/// A checkpoint in the reference, for the task it was trained for.
pub(crate) fn load_reference(checkpoint: &Checkpoint) -> anyhow::Result<Model> {
    Ok(reference_model(checkpoint, Task::of_architecture(checkpoint.config().architecture))?)
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let folders =
        ProjectDirs::from("", "", "jetmoe").context("this user has no home folder to keep a cache in")?;
    Ok(folders.cache_dir().to_owned())
}
