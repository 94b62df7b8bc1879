//! The fixtures, their exports, and checkpoints that differ from them on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jetmoe::artifact::{Artifact, GraphRecord, OptionalOutput, Precision, Profile, Task};
use jetmoe::checkpoint::{Checkpoint, Dtype as StoredType, names};
use jetmoe::conformance::{BackendName, Expectation, load, read_golden, reference_model_of_graph};
use jetmoe::export::{ExportOptions, export};
use jetmoe::rt::{Device, LoadOptions, Model};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// Folders of checkpoints with a golden file.
const FIXTURES: [&str; 2] = ["tests/fixtures/goldens", "tests/fixtures/models"];
const GOLDEN: &str = "golden.safetensors";

pub(crate) const ORT: &str = "ort";
pub(crate) const TRACT: &str = "tract";

/// The backend of a name.
pub(crate) fn named(backend: &str) -> BackendName {
    backend.parse().unwrap()
}

/// What a case is run on: a backend, and of the case's graphs the one of a profile and a precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    backend: &'static str,
    profile: Profile,
    precision: Precision,
}

impl Subject {
    pub(crate) const ORT: Subject = Subject::exact(ORT, Profile::Portable);
    pub(crate) const ORT_OWN_OPERATORS: Subject = Subject::exact(ORT, Profile::OnnxRuntime);
    pub(crate) const ORT_KERNELS: Subject = Subject::kernels(ORT);
    pub(crate) const TRACT: Subject = Subject::exact(TRACT, Profile::Portable);
    pub(crate) const TRACT_KERNELS: Subject = Subject::kernels(TRACT);
    /// It runs no graph.
    pub(crate) const REFERENCE: Subject = Subject::exact(BackendName::REFERENCE.as_str(), Profile::Portable);

    const ALL: [Subject; 6] = [
        Self::ORT,
        Self::ORT_OWN_OPERATORS,
        Self::ORT_KERNELS,
        Self::TRACT,
        Self::TRACT_KERNELS,
        Self::REFERENCE,
    ];

    const fn exact(backend: &'static str, profile: Profile) -> Subject {
        Subject { backend, profile, precision: Precision::F32 }
    }

    /// Our kernels compute bfloat16 weights with float32 rows, to float32's tolerance. What they do with rounded ones is
    /// held to the answers in `native.rs`.
    const fn kernels(backend: &'static str) -> Subject {
        Subject { backend, profile: Profile::Native, precision: Precision::Bf16 }
    }

    /// Those of this build; with a device, those of ONNX Runtime alone that compute on it.
    pub(crate) fn built_in() -> Vec<Subject> {
        let has_device = std::env::var_os(DEVICE_VARIABLE).is_some();
        let built_in = BackendName::built_in();
        let is_here = |subject: &Subject| {
            // the custom operators compute on the processor
            let has_it = !has_device || (subject.backend == ORT && subject.profile != Profile::Native);
            built_in.contains(&subject.backend()) && has_it
        };
        Self::ALL.into_iter().filter(is_here).collect()
    }

    pub(crate) fn backend(self) -> BackendName {
        named(self.backend)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.backend, self.precision, self.profile)
    }
}

/// A checkpoint with what transformers computed for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

impl Case {
    /// Every case in the folders, sorted by name.
    pub(crate) fn all() -> Vec<Case> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = FIXTURES.iter().flat_map(|fixtures| fs::read_dir(root.join(fixtures)).unwrap());
        let mut cases: Vec<Case> = folders
            .map(|entry| entry.unwrap().path())
            .filter(|folder| folder.join(GOLDEN).is_file())
            .map(|folder| Case { name: folder.file_name().unwrap().to_str().unwrap().to_owned(), folder })
            .collect();
        cases.sort();
        cases
    }

    pub(crate) fn named(name: &str) -> Case {
        Case::all().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.folder).unwrap()
    }

    pub(crate) fn golden(&self) -> Expectation {
        read_golden(&self.folder.join(GOLDEN), self.checkpoint().config()).unwrap()
    }

    /// The case exported for what it was trained for.
    pub(crate) fn export(&self) -> Export {
        Export::of(self.checkpoint(), None)
    }

    /// A JSON file beside the weights.
    pub(crate) fn json(&self, file: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.folder.join(file)).unwrap()).unwrap()
    }
}

/// An artifact with a graph for every subject and every output there is, and the checkpoint it was made from.
pub(crate) struct Export {
    pub(crate) artifact: Artifact,
    checkpoint: Checkpoint,
    /// Removed when this is dropped.
    folders: Vec<TempDir>,
}

impl Export {
    /// Exports for a task; for what the checkpoint was trained for if `None`.
    pub(crate) fn of(checkpoint: Checkpoint, task: Option<Task>) -> Export {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let graphs = Subject::ALL.map(|subject| (subject.profile, subject.precision));
        for (profile, precision) in BTreeSet::from(graphs) {
            let options = ExportOptions {
                task,
                profile,
                precision,
                optional_outputs: OptionalOutput::ALL.iter().copied().collect(),
                ..ExportOptions::new(checkpoint.folder().display().to_string(), folder.path())
            };
            export(&checkpoint, &options).unwrap();
        }
        Export { artifact: Artifact::open(folder.path()).unwrap(), checkpoint, folders: vec![folder] }
    }

    pub(crate) fn load(&self, subject: Subject) -> Model {
        let options = LoadOptions {
            profile: Some(subject.profile),
            precision: Some(subject.precision),
            ..load_options(subject.backend())
        };
        load(subject.backend(), &self.artifact, Some(&self.checkpoint), &options).unwrap()
    }

    /// Whether a subject computes with the checkpoint's weights as they are.
    pub(crate) fn is_exact(&self, subject: Subject) -> bool {
        let tensors = self.checkpoint.tensors();
        let is_bf16 = |name: &str| tensors.get(name).unwrap().dtype == StoredType::Bf16;
        subject.precision == Precision::F32 || tensors.names().all(is_bf16)
    }

    /// What a subject must make of the golden file's tokens: what transformers did, or where its weights are rounded,
    /// what the reference does with those.
    pub(crate) fn expectation(&self, subject: Subject, golden: Expectation) -> Expectation {
        if self.is_exact(subject) {
            return golden;
        }
        let record = self.artifact.graph(Some(subject.precision), Some(subject.profile)).unwrap();
        // a golden file has what the checkpoint's own head gives, whatever the graph has
        let task = Task::of_architecture(self.checkpoint.config().architecture);
        let record = GraphRecord { task, ..record.clone() };
        let model = reference_model_of_graph(&self.checkpoint, &self.artifact, &record).unwrap();
        Expectation::for_batch(&model, golden.batch).unwrap()
    }
}

/// Names the device that ONNX Runtime is to compute on, as `--device` does; the CPU without it. A process holds one
/// libonnxruntime, so each device has the suite to itself: `cargo xtask ci openvino`.
const DEVICE_VARIABLE: &str = "JETMOE_TEST_DEVICE";

/// The device under test, with its default options.
pub(crate) fn device(backend: BackendName) -> Device {
    match std::env::var(DEVICE_VARIABLE) {
        Ok(device) if backend == named(ORT) => device.parse().unwrap(),
        _ => Device::Cpu,
    }
}

/// How a backend is loaded on the device under test.
pub(crate) fn load_options(backend: BackendName) -> LoadOptions {
    LoadOptions { device: device(backend), ..LoadOptions::default() }
}

/// A case of float32 weights in one file whose configuration and weights can be changed.
pub(crate) struct Altered {
    pub(crate) config: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Altered {
    pub(crate) fn from(case: &Case) -> Altered {
        let bytes = fs::read(case.folder.join(names::WEIGHTS)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.iter().map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F32, "{name} of {}", case.name);
            let (elements, _) = view.data().as_chunks::<4>();
            let values = elements.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        Altered { config: case.json(names::CONFIG), tensors: tensors.collect() }
    }

    /// A weight, row-major.
    pub(crate) fn weight(&mut self, name: &str) -> &mut [f32] {
        &mut self.tensors.get_mut(name).unwrap_or_else(|| panic!("no weight {name}")).1
    }

    /// A row of a weight's first dimension: one expert, or one output.
    pub(crate) fn row(&mut self, name: &str, index: usize) -> &mut [f32] {
        let rows = self.tensors[name].0[0];
        let weight = self.weight(name);
        let length = weight.len() / rows;
        &mut weight[index * length..][..length]
    }

    /// The checkpoint, exported for what it was trained for.
    pub(crate) fn export(&self) -> Export {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(folder.path().join(names::CONFIG), self.config.to_string()).unwrap();
        let bytes: BTreeMap<&String, Vec<u8>> = self
            .tensors
            .iter()
            .map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let views = self.tensors.iter().map(|(name, (shape, _))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.path().join(names::WEIGHTS)).unwrap();
        let mut export = Export::of(Checkpoint::open(folder.path()).unwrap(), None);
        export.folders.push(folder);
        export
    }
}
