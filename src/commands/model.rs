//! The model argument: an artifact, a checkpoint, or a hub id, and the backend to run it in.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use directories::ProjectDirs;
use jetmoe_artifact::{Artifact, OptionalOutput, Precision, Profile, Task, names};
use jetmoe_checkpoint::{Checkpoint, Digest, HubOptions, ModelSource};
use jetmoe_conformance::{BackendName, load, reference_model};
use jetmoe_console::{DownloadBar, StageBars, byte_bar};
use jetmoe_export::{ExportOptions, export_with_progress};
use jetmoe_rt::{Device, LoadOptions, Model, ProviderOption, backends};

use super::note;

const HEADING: &str = "Model";

/// Which model, and how it is loaded.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArguments {
    /// Artifact made by jetmoe-export, checkpoint folder, or hub id (owner/name).
    #[arg(long, value_name = "DIR", help_heading = HEADING)]
    pub(crate) model: String,
    /// Branch, tag or commit of a hub id.
    #[arg(long, value_name = "REVISION", help_heading = HEADING)]
    revision: Option<String>,
    /// Where ONNX Runtime computes [default: cpu]: cpu, cuda[:N], tensorrt[:N], openvino[:CPU|GPU|GPU.N|NPU|AUTO], or auto
    /// for the first of cuda and cpu that can be had. See docs/devices.md.
    #[arg(long, value_name = "DEVICE", help_heading = HEADING)]
    device: Option<Device>,
    /// An option of the device, such as precision=bf16 for openvino; may be given several times. docs/devices.md lists
    /// them.
    #[arg(long, value_name = "NAME=VALUE", requires = "device", help_heading = HEADING)]
    provider_option: Vec<ProviderOption>,
    /// Which of the artifact's graphs: f32, f16, bf16, int8, q4f16 or q4; by default the first of these that it has and
    /// that the backend can run.
    #[arg(long, value_name = "PRECISION", help_heading = HEADING)]
    precision: Option<Precision>,
    /// Which of the artifact's graphs, by the operators it uses: portable, onnxruntime or native; by default the one
    /// that suits the backend best.
    #[arg(long, value_name = "PROFILE", help_heading = HEADING)]
    profile: Option<Profile>,
    /// Threads that compute; all cores by default.
    #[arg(long, value_name = "N", help_heading = HEADING)]
    threads: Option<usize>,
    /// Longest sequence, prompt and continuation, in tokens: the cache gets that much room at once and never more. By
    /// default it grows up to the model's own limit.
    #[arg(long, value_name = "N", help_heading = HEADING)]
    max_sequence_length: Option<usize>,
    /// Multiply quantized weights with float32 activations; by default ONNX Runtime rounds those to 8 bits, which is
    /// faster.
    #[arg(long, help_heading = HEADING)]
    exact: bool,
    /// Keep 16-bit weights in the file and convert them again in each step of ONNX Runtime: little memory, but about 20
    /// times slower.
    #[arg(long, help_heading = HEADING)]
    low_memory: bool,
    /// Load a model even if it seems not to fit in memory.
    #[arg(long, help_heading = HEADING)]
    no_memory_check: bool,
    /// The libonnxruntime to load, instead of the one that is found (see `jetmoe devices`).
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    onnxruntime: Option<PathBuf>,
    /// A file for a trace, of a command that has an option for it.
    #[arg(skip)]
    pub(crate) trace: Option<PathBuf>,
}

/// What the model argument turned out to be.
#[derive(Debug)]
pub(crate) enum Opened {
    /// An artifact.
    Artifact(Box<Artifact>),
    /// A checkpoint, not exported yet.
    Checkpoint(Box<Checkpoint>),
}

impl Opened {
    /// The artifact's task, or the one that the checkpoint was trained for. `None` for an artifact without a graph.
    fn task(&self) -> Option<Task> {
        match self {
            Opened::Artifact(artifact) => artifact.manifest().graphs.first().map(|graph| graph.task),
            Opened::Checkpoint(checkpoint) => Some(Task::of_architecture(checkpoint.config().architecture)),
        }
    }
}

impl ModelArguments {
    /// Finds out what the argument is; a hub id is downloaded first.
    pub(crate) fn open(&self) -> anyhow::Result<Opened> {
        anyhow::ensure!(self.threads != Some(0), "--threads is 0, expected at least 1");
        self.device()?;
        let path = Path::new(&self.model);
        anyhow::ensure!(
            !path.is_file(),
            "{} is a file\n  give the folder of an artifact or of a checkpoint",
            path.display()
        );
        let folder = model_folder(&self.model, self.revision.clone())?;
        if Artifact::is_artifact(&folder) {
            return Ok(Opened::Artifact(Box::new(Artifact::open(&folder)?)));
        }
        let unfinished = folder.join(names::UNFINISHED).exists();
        anyhow::ensure!(
            !unfinished,
            "{} is no artifact yet: its export is running, or was interrupted\n  \
             export again: jetmoe-export MODEL --output {0}",
            folder.display()
        );
        Ok(Opened::Checkpoint(Box::new(Checkpoint::open(&folder)?)))
    }

    /// The same way of loading, for another model.
    pub(crate) fn with_model(&self, model: String, precision: Option<Precision>) -> Self {
        ModelArguments { model, precision, profile: None, revision: None, ..self.clone() }
    }

    /// Refuses a model of another task before anything is loaded, and says what it is good for.
    pub(crate) fn require_task(&self, opened: &Opened, needed: Task) -> anyhow::Result<()> {
        let advice = match opened.task() {
            Some(found) if found == needed => return Ok(()),
            Some(Task::CausalLm) => "is a causal-lm model\n  `jetmoe run` continues texts with it",
            Some(Task::SequenceClassification) => {
                "is a sequence-classification model\n  `jetmoe classify` classifies texts with it"
            }
            Some(Task::Backbone) => {
                "is a backbone, which returns hidden states to programs\n  \
                 export its checkpoint for another task: jetmoe-export MODEL --output DIR --task TASK"
            }
            None => "holds no graph\n  export again",
        };
        anyhow::bail!("this command needs a {needed} model, and {} {advice}", self.model)
    }

    /// Loads the model: an artifact into ONNX Runtime, or tract where there is none; a checkpoint into the reference,
    /// or, when another backend is asked for, exported to the cache first.
    pub(crate) fn load(&self, opened: &Opened, backend: Option<BackendName>) -> anyhow::Result<Model> {
        // a checkpoint runs in the reference, unless the device says that it cannot be meant
        let backend = backend.or_else(|| self.other_device().and_then(|_| self.backends().first().copied()));
        if let Some(backend) = backend {
            self.require_device_of(backend)?;
        }
        match (opened, backend) {
            (Opened::Artifact(artifact), None) => Ok(Model::load_artifact(artifact, &self.load_options()?)?),
            (Opened::Artifact(artifact), Some(backend)) => {
                let checkpoint = (backend == BackendName::REFERENCE)
                    .then(|| resolve_checkpoint(artifact, None, "give that checkpoint as --model"))
                    .transpose()?;
                self.load_into(backend, artifact, checkpoint.as_ref())
            }
            (Opened::Checkpoint(checkpoint), None) => {
                note(&format!(
                    "{} is a checkpoint: running it in the Candle reference; for speed, export it: \
                     jetmoe-export {} --output DIR",
                    self.model, self.model
                ));
                load_reference(checkpoint)
            }
            (Opened::Checkpoint(checkpoint), Some(BackendName::REFERENCE)) => load_reference(checkpoint),
            (Opened::Checkpoint(checkpoint), Some(backend)) => {
                let artifact = self.export_to_cache(checkpoint)?;
                self.load_into(backend, &artifact, Some(checkpoint))
            }
        }
    }

    /// Loads an opened model into one backend.
    pub(crate) fn load_into(
        &self,
        backend: BackendName,
        artifact: &Artifact,
        checkpoint: Option<&Checkpoint>,
    ) -> anyhow::Result<Model> {
        Ok(load(backend, artifact, checkpoint, &self.load_options()?)?)
    }

    /// The artifact of a checkpoint in this user's cache, exported with every output when it is not there yet.
    pub(crate) fn export_to_cache(&self, checkpoint: &Checkpoint) -> anyhow::Result<Artifact> {
        let digest = digest_of(checkpoint)?;
        let artifacts = cache_folder()?.join("artifacts");
        let folder = artifacts.join(&digest.to_string()[..16]);
        let _lock = lock(&artifacts, &folder.with_extension("lock"))?;
        if let Ok(artifact) = Artifact::open(&folder)
            && artifact.manifest().checkpoint.digest == digest
            && artifact.manifest().tool_version == env!("CARGO_PKG_VERSION")
        {
            return Ok(artifact);
        }
        note(&format!("exporting {} to {}", self.model, folder.display()));
        let options = ExportOptions {
            optional_outputs: OptionalOutput::ALL.iter().copied().collect(),
            // the folder is ours, and what lies there is damaged or by another version
            force: true,
            ..ExportOptions::new(ModelSource::parse(&self.model)?.permanent_name(), &folder)
        };
        let bars = StageBars::default();
        export_with_progress(checkpoint, &options, &|progress| {
            bars.advance(progress.stage.name(), byte_bar, progress.delta, progress.total);
        })
        .context(CACHE_ADVICE)?;
        Ok(Artifact::open(&folder)?)
    }

    /// As asked for, but without rounding of activations.
    pub(crate) fn exact_load_options(&self) -> anyhow::Result<LoadOptions> {
        Ok(LoadOptions { int8_activations: false, ..self.load_options()? })
    }

    /// How many threads were asked for.
    pub(crate) fn threads(&self) -> Option<usize> {
        self.threads
    }

    /// The device, if it is another than the CPU.
    fn other_device(&self) -> Option<&Device> {
        self.device.as_ref().filter(|device| device.provider().is_some())
    }

    /// The backends that have the device: all of this build for the CPU.
    pub(crate) fn backends(&self) -> Vec<BackendName> {
        let Some(device) = self.other_device() else { return BackendName::built_in() };
        let with_device = backends().iter().filter(|backend| backend.has_device(device));
        with_device.filter_map(|backend| backend.name().parse().ok()).collect()
    }

    /// Refuses the reference on another device than the CPU.
    fn require_device_of(&self, backend: BackendName) -> anyhow::Result<()> {
        match (self.other_device(), backend) {
            (Some(device), BackendName::REFERENCE) => anyhow::bail!(
                "the reference computes on the CPU only, and the device is {device}\n  \
                 choose --backend ort for that device, or --device cpu"
            ),
            _ => Ok(()),
        }
    }

    /// The device with its options.
    fn device(&self) -> anyhow::Result<Device> {
        let device = self.device.clone().unwrap_or_default();
        Ok(device.with_options(&self.provider_option)?)
    }

    /// As asked for, in whatever runtime suits the artifact.
    pub(crate) fn load_options(&self) -> anyhow::Result<LoadOptions> {
        Ok(LoadOptions {
            device: self.device()?,
            precision: self.precision,
            profile: self.profile,
            threads: self.threads,
            max_sequence_length: self.max_sequence_length,
            int8_activations: !self.exact,
            low_memory: self.low_memory,
            check_memory: !self.no_memory_check,
            onnxruntime_library: self.onnxruntime.clone(),
            trace: self.trace.clone(),
            ..LoadOptions::default()
        })
    }
}

/// The folder that an argument means; a hub id is downloaded first.
fn model_folder(model: &str, revision: Option<String>) -> anyhow::Result<PathBuf> {
    let source = ModelSource::parse(model)?;
    let observer = Some(Arc::new(DownloadBar::default()) as _);
    let options = HubOptions { revision, observer, ..HubOptions::default() };
    match &source {
        ModelSource::Folder(_) => Ok(source.resolve(&options)?),
        // a folder's name with a mistake in it looks like a hub id
        ModelSource::Hub(id) => {
            source.resolve(&options).with_context(|| format!("there is no folder {id} here"))
        }
    }
}

/// The checkpoint that an artifact was made from: the one that is named, else the one that the manifest remembers. It
/// must be the very same. `advice` says how to name another.
pub(crate) fn resolve_checkpoint(
    artifact: &Artifact,
    named: Option<&str>,
    advice: &str,
) -> anyhow::Result<Checkpoint> {
    let remembered = &artifact.manifest().checkpoint;
    let source = named.unwrap_or(&remembered.source);
    let checkpoint = model_folder(source, None).and_then(|folder| Ok(Checkpoint::open(&folder)?));
    let checkpoint = match named {
        Some(_) => checkpoint?,
        None => checkpoint.with_context(|| {
            format!("the artifact was made from {source}, which cannot be opened any more\n  {advice}")
        })?,
    };
    let digest = digest_of(&checkpoint)?;
    anyhow::ensure!(
        digest == remembered.digest,
        "{source} is not the checkpoint that the artifact was made from: its digest is {digest}, the manifest says {}\n  \
         {advice}, or export again",
        remembered.digest
    );
    Ok(checkpoint)
}

/// A checkpoint in the reference, for the task it was trained for.
fn load_reference(checkpoint: &Checkpoint) -> anyhow::Result<Model> {
    Ok(reference_model(checkpoint, Task::of_architecture(checkpoint.config().architecture))?)
}

fn digest_of(checkpoint: &Checkpoint) -> anyhow::Result<Digest> {
    let bar = byte_bar("hashing", checkpoint.tensors().size_in_bytes());
    Ok(checkpoint.digest(&|bytes| bar.inc(bytes))?)
}

const CACHE_ADVICE: &str = "this backend runs artifacts only, and the checkpoint cannot be exported to the cache\n  \
                            set XDG_CACHE_HOME to another folder, or export it yourself: jetmoe-export MODEL --output DIR";

fn cache_folder() -> anyhow::Result<PathBuf> {
    let folders =
        ProjectDirs::from("", "", "jetmoe").context("this user has no home folder to keep a cache in")?;
    Ok(folders.cache_dir().to_owned())
}

/// Keeps others from exporting the same checkpoint to the cache as long as the answer lives.
fn lock(folder: &Path, file: &Path) -> anyhow::Result<File> {
    let lock = fs::create_dir_all(folder)
        .and_then(|()| File::create(file))
        .with_context(|| format!("cannot write {}", file.display()))
        .context(CACHE_ADVICE)?;
    if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
        note("waiting for another jetmoe, which is exporting the same checkpoint");
        // a file system without locks never comes here
        let _ = lock.lock();
    }
    Ok(lock)
}
