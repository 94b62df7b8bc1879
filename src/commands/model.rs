//! The model argument: an artifact, a checkpoint, or a hub id, and the backend to run it in.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use directories::ProjectDirs;
use jetmoe_artifact::{
    Artifact, CheckpointRecord, ObservedValue, OptionalOutput, Precision, Profile, Task, names,
};
use jetmoe_checkpoint::{Checkpoint, Digest, Folder, ModelConfig, belongs_to_user};
use jetmoe_conformance::{BackendName, load, reference_model};
use jetmoe_console::{StageBars, byte_bar, escape_line, model_folder};
use jetmoe_export::{ExportOptions, export_with_progress};
use jetmoe_hub::{Content, HubOptions, ModelSource};
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
    /// Device for ONNX Runtime: cpu, cuda[:N], tensorrt[:N], openvino[:CPU|GPU|GPU.N|NPU|AUTO], or auto for cuda if it is
    /// usable and cpu otherwise. See docs/devices.md [default: cpu]
    #[arg(long, value_name = "DEVICE", help_heading = HEADING)]
    device: Option<Device>,
    /// Option of the device, such as precision=bf16 for openvino. Can be given several times. See docs/devices.md.
    #[arg(long, value_name = "NAME=VALUE", requires = "device", help_heading = HEADING)]
    provider_option: Vec<ProviderOption>,
    /// Graph of the artifact, by precision: f32, f16, bf16, int8, q4f16 or q4 [default: the first one of these that exists
    /// and that the backend supports]
    #[arg(long, value_name = "PRECISION", help_heading = HEADING)]
    precision: Option<Precision>,
    /// Graph of the artifact, by the operators that it uses: portable, onnxruntime, gpu or native [default: the one that the
    /// backend prefers]
    #[arg(long, value_name = "PROFILE", help_heading = HEADING)]
    profile: Option<Profile>,
    /// Number of threads [default: one per physical core, but no more than the process may use by its affinity and by the quota
    /// of its control group]
    #[arg(long, value_name = "N", help_heading = HEADING)]
    threads: Option<usize>,
    /// Maximum length of prompt and continuation in tokens. The cache is allocated at once for this length; by default it
    /// grows up to the limit of the model.
    #[arg(long, value_name = "N", help_heading = HEADING)]
    max_sequence_length: Option<usize>,
    /// Multiply quantized weights with float32 activations; by default ONNX Runtime quantizes activations to 8 bits, which
    /// is faster.
    #[arg(long, help_heading = HEADING)]
    exact: bool,
    /// Compute the same bits for a token alone, beside others and in chunks of any size. Processors with AMX then read long prompts
    /// with 8-bit instead of bfloat16 products, which is slower; others compute the same either way.
    #[arg(long, help_heading = HEADING)]
    batch_invariant: bool,
    /// Convert 16-bit weights in each step of ONNX Runtime instead of once: takes little memory, but is about 20 times
    /// slower.
    #[arg(long, help_heading = HEADING)]
    low_memory: bool,
    /// Load a model even if it does not seem to fit in memory.
    #[arg(long, help_heading = HEADING)]
    no_memory_check: bool,
    /// Load a graph without the check that it is one that jetmoe-export writes. Only for artifacts of people you trust.
    #[arg(long, help_heading = HEADING)]
    trust_graph: bool,
    /// Read the weights and compare their SHA-256 digest with jetmoe.json before they are used. Takes about a second for 1.5 GB.
    #[arg(long, help_heading = HEADING)]
    verify_digests: bool,
    /// Copy the weights into a new folder in DIR that other users cannot enter, compare the digest of the copy, and use it: the
    /// artifact can then be changed or removed meanwhile. Takes the space of the weights in DIR until the command ends, or
    /// memory if DIR is a tmpfs, as /tmp may be.
    #[arg(long, value_name = "DIR", help_heading = HEADING)]
    pub(crate) private_copy: Option<PathBuf>,
    /// The libonnxruntime to load [default: the first usable one that `jetmoe devices` lists]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    onnxruntime: Option<PathBuf>,
    /// File for a trace, set by commands with an option for it.
    #[arg(skip)]
    pub(crate) trace: Option<PathBuf>,
    /// What a copy of the graph returns as well, set by commands that show it.
    #[arg(skip)]
    pub(crate) observed: Option<ObservedValue>,
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
    /// The task of the artifact, or the one that the checkpoint was trained for. `None` for an artifact without graphs.
    fn task(&self) -> Option<Task> {
        match self {
            Opened::Artifact(artifact) => artifact.manifest().graphs.first().map(|graph| graph.task),
            Opened::Checkpoint(checkpoint) => Some(Task::of_architecture(checkpoint.config().architecture)),
        }
    }

    /// The configuration of the model.
    pub(crate) fn config(&self) -> &ModelConfig {
        match self {
            Opened::Artifact(artifact) => artifact.config(),
            Opened::Checkpoint(checkpoint) => checkpoint.config(),
        }
    }
}

impl ModelArguments {
    /// Opens the argument; a hub id is downloaded first.
    pub(crate) fn open(&self) -> anyhow::Result<Opened> {
        anyhow::ensure!(self.threads != Some(0), "--threads is 0, expected at least 1");
        if let (Some(requested), Some(threads)) = (self.threads, self.threads())
            && threads < requested
        {
            note(&format!(
                "--threads is {requested}, and there are {threads} processors: using {threads} threads"
            ));
        }
        self.device()?;
        let path = Path::new(&self.model);
        anyhow::ensure!(
            !path.is_file(),
            "{} is a file\n  give the folder of an artifact or of a checkpoint",
            path.display()
        );
        let folder = model_folder(&ModelSource::parse(&self.model)?, self.revision.clone(), Content::Any)?;
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

    /// The same arguments for another model.
    pub(crate) fn with_model(&self, model: String, precision: Option<Precision>) -> Self {
        ModelArguments { model, precision, profile: None, revision: None, ..self.clone() }
    }

    /// Refuses a model of another task before it is loaded, and names the command for it.
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

    /// Loads the model: an artifact into its default backend, a checkpoint into the reference. For another backend, a
    /// checkpoint is exported to the cache first.
    pub(crate) fn load(&self, opened: &Opened, backend: Option<BackendName>) -> anyhow::Result<Model> {
        // a checkpoint runs in the reference, unless the device excludes that
        let backend = backend.or_else(|| self.other_device().and_then(|_| self.backends().first().copied()));
        if let Some(backend) = backend {
            self.require_device_of(backend)?;
        }
        match (opened, backend) {
            (Opened::Artifact(artifact), None) => Ok(Model::load_artifact(artifact, &self.load_options()?)?),
            (Opened::Artifact(artifact), Some(backend)) => {
                let checkpoint = (backend == BackendName::REFERENCE)
                    .then(|| resolve_checkpoint(artifact, None, "--model"))
                    .transpose()?;
                self.load_into(backend, artifact, checkpoint.as_ref())
            }
            (Opened::Checkpoint(checkpoint), None) => {
                note(&format!(
                    "{} is a checkpoint: running it in the Candle reference; for speed, export it: \
                     jetmoe-export {} --output DIR",
                    self.model, self.model
                ));
                self.load_reference(checkpoint)
            }
            (Opened::Checkpoint(checkpoint), Some(BackendName::REFERENCE)) => self.load_reference(checkpoint),
            (Opened::Checkpoint(checkpoint), Some(backend)) => {
                let artifact = self.export_to_cache(checkpoint)?;
                self.load_into(backend, &artifact, Some(checkpoint))
            }
        }
    }

    /// A checkpoint in the reference, for the task it was trained for.
    fn load_reference(&self, checkpoint: &Checkpoint) -> anyhow::Result<Model> {
        let refused =
            [("--verify-digests", self.verify_digests), ("--private-copy", self.private_copy.is_some())];
        if let Some((flag, _)) = refused.iter().find(|(_, is_set)| *is_set) {
            anyhow::bail!(
                "{flag} is for artifacts, and {} is a checkpoint in the reference\n  \
                 export it: jetmoe-export MODEL --output DIR",
                self.model
            );
        }
        checkpoint.check_finite()?;
        Ok(reference_model(checkpoint, Task::of_architecture(checkpoint.config().architecture))?)
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

    /// The artifact of a checkpoint in the user's cache; exported with all outputs if it is not there.
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
            // whatever is in this folder of the cache is damaged or by another version
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

    /// The load options, without quantization of activations.
    pub(crate) fn exact_load_options(&self) -> anyhow::Result<LoadOptions> {
        Ok(self.load_options()?.with_int8_activations(false))
    }

    /// The value of `--threads`, but no more threads than processors.
    pub(crate) fn threads(&self) -> Option<usize> {
        let processors = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
        self.threads.map(|threads| threads.min(processors))
    }

    /// The device, unless it is the CPU.
    fn other_device(&self) -> Option<&Device> {
        self.device.as_ref().filter(|device| device.provider().is_some())
    }

    /// The backends that support the device; for the CPU, all of this build.
    pub(crate) fn backends(&self) -> Vec<BackendName> {
        let Some(device) = self.other_device() else { return BackendName::built_in() };
        let with_device = backends().iter().filter(|backend| backend.has_device(device));
        with_device.filter_map(|backend| backend.name().parse().ok()).collect()
    }

    /// Refuses the reference on a device other than the CPU.
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

    /// The load options, without a backend.
    pub(crate) fn load_options(&self) -> anyhow::Result<LoadOptions> {
        let mut options = LoadOptions::default()
            .with_device(self.device()?)
            .with_precision(self.precision)
            .with_profile(self.profile)
            .with_threads(self.threads())
            .with_max_sequence_length(self.max_sequence_length)
            .with_int8_activations(!self.exact)
            .with_batch_invariant(self.batch_invariant)
            .with_low_memory(self.low_memory)
            .with_check_memory(!self.no_memory_check)
            .with_trust_graph(self.trust_graph)
            .with_verify_digests(self.verify_digests)
            .with_observed(self.observed);
        options.private_copy.clone_from(&self.private_copy);
        options.onnxruntime_library.clone_from(&self.onnxruntime);
        options.trace.clone_from(&self.trace);
        Ok(options)
    }
}

/// The checkpoint that an artifact was made from: the named one, otherwise the one in the manifest. Its digest must match.
/// `flag` is the option that names one.
pub(crate) fn resolve_checkpoint(
    artifact: &Artifact,
    named: Option<&str>,
    flag: &str,
) -> anyhow::Result<Checkpoint> {
    let remembered = &artifact.manifest().checkpoint;
    let checkpoint = match named {
        None => open_remembered(artifact, flag)?,
        Some(named) => {
            // of the hub id in the manifest, the commit in the manifest
            let is_remembered = named == remembered.source && !Path::new(named).exists();
            let revision = remembered.revision.clone().filter(|_| is_remembered);
            Checkpoint::open(model_folder(&ModelSource::parse(named)?, revision, Content::Checkpoint)?)?
        }
    };
    let digest = digest_of(&checkpoint)?;
    anyhow::ensure!(
        digest == remembered.digest,
        "{} is not the checkpoint that the artifact was made from: its digest is {digest}, the manifest says {}\n  \
         name it with {flag}, or export again",
        escape_line(named.unwrap_or(&remembered.source)),
        remembered.digest
    );
    Ok(checkpoint)
}

/// Opens the checkpoint that a manifest names. The artifact may be somebody else's, so this is not done for a manifest of another
/// user, and nothing is fetched from the network.
fn open_remembered(artifact: &Artifact, flag: &str) -> anyhow::Result<Checkpoint> {
    let manifest = artifact.folder().join(names::MANIFEST);
    let CheckpointRecord { source, revision, .. } = &artifact.manifest().checkpoint;
    let shown = escape_line(source);
    let advice = format!("if you trust it, add {flag} {}", shell_quoted(source));
    let is_own = belongs_to_user(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    anyhow::ensure!(
        is_own,
        "{} belongs to another user, so the checkpoint that it names is not opened: {shown}\n  {advice}",
        manifest.display()
    );
    anyhow::ensure!(
        !source.starts_with("//") && !source.starts_with(r"\\"),
        "{} names a checkpoint on another machine, which is not opened: {shown}\n  {advice}",
        manifest.display()
    );
    let gone = || {
        format!("the artifact was made from {shown}, which cannot be opened any more\n  name it with {flag}")
    };
    let folder = match ModelSource::parse(source).with_context(gone)? {
        ModelSource::Folder(folder) => folder,
        hub @ ModelSource::Hub(_) => {
            let options = HubOptions {
                revision: revision.clone(),
                content: Content::Checkpoint,
                offline: true,
                ..HubOptions::default()
            };
            hub.resolve(&options).map_err(|error| {
                let missing = match error {
                    jetmoe_hub::Error::Download { source: Some(source), .. } => source.to_string(),
                    other => other.to_string(),
                };
                anyhow::anyhow!(
                    "the artifact was made from {shown} on the hub, which is not in the cache: {missing}\n  \
                     nothing is downloaded that a manifest alone names; {advice}"
                )
            })?
        }
    };
    note(&format!("the checkpoint is {}, as {} says", folder.display(), manifest.display()));
    Checkpoint::open(&folder).with_context(gone)
}

/// An argument as a POSIX shell needs it.
fn shell_quoted(argument: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@".contains(letter);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
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

/// Excludes other exports of the same checkpoint to the cache while the returned file is open.
fn lock(folder: &Path, file: &Path) -> anyhow::Result<File> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let lock = fs::create_dir_all(folder)
        .and_then(|()| Folder::open(folder)?.open_or_create(&name))
        .with_context(|| format!("cannot write {}", file.display()))
        .context(CACHE_ADVICE)?;
    if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
        note("waiting for another jetmoe, which is exporting the same checkpoint");
        // does not fail here: on a file system without locks, `try_lock` does not return `WouldBlock`
        let _ = lock.lock();
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_one_word_for_a_shell() {
        for (argument, quoted) in [
            ("owner/name", "owner/name"),
            ("/a/b_c-1.0", "/a/b_c-1.0"),
            ("", "''"),
            ("a b", "'a b'"),
            ("x; rm -r ~", "'x; rm -r ~'"),
            ("it's $(x)", "'it'\\''s $(x)'"),
        ] {
            assert_eq!(shell_quoted(argument), quoted);
        }
    }
}
