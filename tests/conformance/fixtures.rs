//! The fixtures and their exports, made once for all tests that ask for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jetmoe::artifact::{
    Artifact, ArtifactFile, GraphRecord, Manifest, OptionalOutput, Precision, Profile, Task, WeightPlan,
};
use jetmoe::checkpoint::{Checkpoint, Dtype};
use jetmoe::conformance::{Expectation, load, read_golden, reference_model, reference_model_of_graph};
use jetmoe::export::{ExportOptions, export};
use jetmoe::rt::{LoadOptions, Model};
use jetmoe_testing::{Cache, CheckpointDraft, fixtures};
use serde_json::Value;
use tempfile::TempDir;

use crate::subject::Subject;
use crate::suite::{Suite, named};

/// Every export, by what it is an export of.
static EXPORTS: Cache<String, Export> = Cache::new();

/// Removes the folders of all exports; the destructor of a static never runs.
pub(crate) fn remove_temporary_folders() {
    EXPORTS.clear();
}

/// A folder that is removed when it is dropped.
pub(crate) fn temporary_folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Changes the content of the only graph of an artifact, and its size and digest in the manifest.
fn change_graph(folder: &Path, change: fn(&mut Vec<u8>)) {
    let mut manifest = Manifest::read(folder).unwrap();
    let graph = &mut manifest.graphs[0].graph;
    let path = folder.join(&graph.path);
    let mut content = std::fs::read(&path).unwrap();
    change(&mut content);
    std::fs::write(&path, &content).unwrap();
    *graph = ArtifactFile::of_content(graph.path.clone(), &content);
    manifest.write(folder).unwrap();
}

/// A checkpoint with what transformers computed for it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

impl Case {
    /// Every case in the folders, sorted by name.
    pub(crate) fn all() -> Vec<Case> {
        let name = |folder: &PathBuf| folder.file_name().unwrap().to_str().unwrap().to_owned();
        let cases = fixtures::golden_cases().into_iter();
        cases.map(|folder| Case { name: name(&folder), folder }).collect()
    }

    pub(crate) fn named(name: &str) -> Case {
        Case { name: name.to_owned(), folder: fixtures::checkpoint(name) }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.folder).unwrap()
    }

    pub(crate) fn golden(&self) -> Expectation {
        read_golden(&self.folder.join(fixtures::GOLDEN), self.checkpoint().config()).unwrap()
    }

    /// The case exported for the task that it was trained for.
    pub(crate) fn export(&self) -> Arc<Export> {
        self.export_for(None)
    }

    /// The case exported for a task; `None` is the one that it was trained for.
    pub(crate) fn export_for(&self, task: Option<Task>) -> Arc<Export> {
        EXPORTS.get(format!("{} for {task:?}", self.name), || Export::new(self.checkpoint(), task))
    }

    /// The case exported with the outputs of its task alone.
    pub(crate) fn export_without_optional_outputs(&self) -> Arc<Export> {
        EXPORTS.get(format!("{} without optional outputs", self.name), || Export {
            optional_outputs: BTreeSet::new(),
            ..Export::new(self.checkpoint(), None)
        })
    }

    /// A copy of the case with changed weights or a changed configuration, exported. `what` names the change.
    pub(crate) fn export_changed(
        &self,
        what: &str,
        change: impl FnOnce(&mut CheckpointDraft),
    ) -> Arc<Export> {
        EXPORTS.get(format!("{} with {what}", self.name), || {
            let mut draft = CheckpointDraft::read(&self.folder);
            change(&mut draft);
            let folder = draft.write();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            Export { _source: Some(folder), ..Export::new(checkpoint, None) }
        })
    }

    /// The case exported, with a change to every graph file. `what` names the change.
    pub(crate) fn export_with_changed_graphs(&self, what: &str, change: fn(&mut Vec<u8>)) -> Arc<Export> {
        EXPORTS.get(format!("{} with {what} in its graphs", self.name), || Export {
            changed_graphs: Some(change),
            ..Export::new(self.checkpoint(), None)
        })
    }

    /// A JSON file of the case.
    pub(crate) fn json(&self, file: &str) -> Value {
        fixtures::json(&self.name, file)
    }
}

/// A checkpoint, and its graphs that tests requested.
pub(crate) struct Export {
    pub(crate) checkpoint: Checkpoint,
    task: Task,
    graphs: Cache<String, ExportedGraph>,
    models: Cache<String, Model>,
    expectations: Cache<String, Expectation>,
    changed_graphs: Option<fn(&mut Vec<u8>)>,
    optional_outputs: BTreeSet<OptionalOutput>,
    /// The checkpoint's folder if it is temporary.
    _source: Option<TempDir>,
}

/// An artifact with one graph, which has every output there is unless its export says otherwise.
pub(crate) struct ExportedGraph {
    pub(crate) artifact: Artifact,
    _folder: TempDir,
}

impl Export {
    /// Exports for a task; `None` is the one that the checkpoint was trained for.
    fn new(checkpoint: Checkpoint, task: Option<Task>) -> Self {
        let task = task.unwrap_or_else(|| Task::of_architecture(checkpoint.config().architecture));
        Export {
            checkpoint,
            task,
            graphs: Cache::new(),
            models: Cache::new(),
            expectations: Cache::new(),
            changed_graphs: None,
            optional_outputs: OptionalOutput::ALL.iter().copied().collect(),
            _source: None,
        }
    }

    /// The export of a checkpoint in a temporary folder.
    pub(crate) fn of_temporary(
        what: String,
        task: Option<Task>,
        write: impl FnOnce(&TempDir),
    ) -> Arc<Export> {
        EXPORTS.get(what, || {
            let folder = temporary_folder();
            write(&folder);
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            Export { _source: Some(folder), ..Export::new(checkpoint, task) }
        })
    }

    /// The graph for a subject.
    pub(crate) fn graph(&self, subject: Subject) -> Arc<ExportedGraph> {
        self.graph_with(subject.profile, subject.precision, &WeightPlan::default())
    }

    /// The graph whose weights are stored by a plan.
    pub(crate) fn graph_with(
        &self,
        profile: Profile,
        precision: Precision,
        weights: &WeightPlan,
    ) -> Arc<ExportedGraph> {
        self.graphs.get(format!("{profile} {precision} {weights:?}"), || {
            let folder = temporary_folder();
            export(&self.checkpoint, &self.options(&folder, profile, precision, weights)).unwrap();
            if let Some(change) = self.changed_graphs {
                change_graph(folder.path(), change);
            }
            let artifact = Artifact::open(folder.path()).unwrap();
            ExportedGraph { artifact, _folder: folder }
        })
    }

    /// How a graph is exported.
    pub(crate) fn options(
        &self,
        folder: &TempDir,
        profile: Profile,
        precision: Precision,
        weights: &WeightPlan,
    ) -> ExportOptions {
        ExportOptions {
            task: Some(self.task),
            profile,
            precision,
            weights: weights.clone(),
            optional_outputs: self.optional_outputs.clone(),
            // tests make experts useless with NaN
            allow_non_finite: true,
            ..ExportOptions::new(self.checkpoint.folder().display().to_string(), folder.path())
        }
    }

    /// A model of its own.
    pub(crate) fn load(&self, subject: Subject) -> Model {
        self.load_with(subject, &subject.load_options())
    }

    /// A model of its own, with options.
    pub(crate) fn load_with(&self, subject: Subject, options: &LoadOptions) -> Model {
        if subject.is_reference() {
            return reference_model(&self.checkpoint, self.task).unwrap();
        }
        load(subject.backend, &self.graph(subject).artifact, Some(&self.checkpoint), options).unwrap()
    }

    /// A model that all tests share.
    pub(crate) fn model(&self, subject: Subject) -> Model {
        self.shared(subject, "", &subject.load_options())
    }

    /// A model that all tests share and that computes in the test's own thread. Long tests use it: they run at the
    /// same time, and thread pools would compete for the processor.
    pub(crate) fn single_threaded_model(&self, subject: Subject) -> Model {
        self.shared(subject, "single-threaded", &subject.single_threaded_options())
    }

    fn shared(&self, subject: Subject, what: &str, options: &LoadOptions) -> Model {
        let key = format!("{subject} {} {what}", subject.precision);
        Model::clone(&self.models.get(key, || self.load_with(subject, options)))
    }

    /// What a subject must compute for the tokens of a golden file: what transformers computed or, if the graph holds
    /// other weights, what the reference computes with those.
    pub(crate) fn expectation(&self, subject: Subject, golden: Expectation) -> Arc<Expectation> {
        self.expectations.get(format!("{} {}", subject.profile, subject.precision), || {
            if self.is_exact(subject) {
                return golden;
            }
            let graph = self.graph(subject);
            let record = graph.artifact.graph(None, None).unwrap();
            // a golden file has what the checkpoint's own head computes, whatever the graph has
            let task = Task::of_architecture(self.checkpoint.config().architecture);
            let record = GraphRecord { task, ..record.clone() };
            let model = reference_model_of_graph(&self.checkpoint, &graph.artifact, &record).unwrap();
            Expectation::for_batch(&model, golden.batch).unwrap()
        })
    }

    /// Whether a subject computes with the checkpoint's weights as they are.
    pub(crate) fn is_exact(&self, subject: Subject) -> bool {
        let tensors = self.checkpoint.tensors();
        let is_bf16 = |name: &str| tensors.get(name).unwrap().dtype == Dtype::Bf16;
        subject.precision == Precision::F32 || tensors.names().all(is_bf16)
    }
}

/// The suite finds the cases in their folders; these must be among them.
const CASES: [&str; 12] = [
    "bf16-sharded",
    "classifier",
    "dense",
    "jetmoe-mini",
    "jetmoe-mini-classifier",
    "legacy",
    "linear-rope",
    "llama3-rope",
    "odd",
    "tiny",
    "top1",
    "yarn-rope",
];

pub(crate) fn add_tests(suite: &mut Suite) {
    suite.add_general_group("fixtures", named![no_case_is_lost]);
}

fn no_case_is_lost() {
    let found: Vec<String> = Case::all().into_iter().map(|case| case.name).collect();
    for name in CASES {
        assert!(found.iter().any(|found| found == name), "{name} is not among {found:?}");
    }
}
