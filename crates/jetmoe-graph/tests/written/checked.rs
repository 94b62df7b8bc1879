//! The check of a graph before a backend loads it accepts every graph that is written, and its table of operators has no row
//! that none of them needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use jetmoe_artifact::{ArtifactFile, GraphRecord, OptionalOutput, Precision, Profile, Task};
use jetmoe_checkpoint::{Checkpoint, ModelConfig};
use jetmoe_graph::{GraphOptions, Opset, build, write};
use jetmoe_onnx::{AttributeKind, Error, ExportedOperator, Model, check_graph};
use jetmoe_testing::{CheckpointDraft, fixtures};
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared::{Sizes, checkpoint};
use crate::{BY_DEFAULT, Way, every_way, golden, golden_language_models, profiles_of};

/// The files of a graph, and what the manifest of their artifact says.
pub(crate) struct Exported {
    folder: TempDir,
    pub(crate) config: ModelConfig,
    pub(crate) record: GraphRecord,
}

impl Exported {
    pub(crate) fn of(checkpoint: &Checkpoint, options: &GraphOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let graph = build(checkpoint.config(), options).unwrap();
        let [graph_path, data_path] = ["model.onnx", "model.onnx_data"].map(|name| folder.path().join(name));
        let written = write(&graph, checkpoint, &BY_DEFAULT, &graph_path, &data_path, &mut |_| ()).unwrap();
        let file = |name: &str, size, sha256| ArtifactFile {
            path: format!("onnx/{name}"),
            size,
            sha256,
            accepted: false,
        };
        let record = GraphRecord {
            task: options.task,
            precision: options.precision,
            profile: options.profile,
            opset: options.opset.version(),
            optional_outputs: options.optional_outputs.clone(),
            weights: None,
            kv_cache: options.attention_cache(),
            stored: BTreeMap::new(),
            calibration: None,
            graph: file("model.onnx", written.graph_size, written.graph_sha256),
            data: file("model.onnx_data", written.data_size, written.data_sha256),
            verification: Vec::new(),
        };
        Exported { folder, config: checkpoint.config().clone(), record }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("model.onnx")
    }

    pub(crate) fn model(&self) -> Model {
        jetmoe_onnx::read(&self.path()).unwrap()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_graph(&self.path(), &fs::read(self.path()).unwrap(), &self.config, &self.record)
    }
}

/// A checkpoint of the fixtures with another configuration.
fn changed(name: &str, key: &str, value: Value) -> (TempDir, Checkpoint) {
    let folder = CheckpointDraft::read(&fixtures::checkpoint(name)).with(key, value).write();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

/// Calls `visit` with every kind of graph: each precision, profile, task, set of outputs, opset, activation, group size and
/// override, and models with one expert, with heads that ONNX Runtime's attention does not take, and without tied embeddings.
pub(crate) fn every_export(mut visit: impl FnMut(&str, &Exported)) {
    let mut export = |what: &str, checkpoint: &Checkpoint, options: &GraphOptions| {
        visit(what, &Exported::of(checkpoint, options));
    };
    let each_profile = |change: &dyn Fn(&GraphOptions) -> GraphOptions| -> Vec<GraphOptions> {
        let kinds = Precision::ALL.iter().flat_map(|precision| {
            profiles_of(*precision).map(|profile| Way::new(*precision, profile).options(Task::CausalLm))
        });
        kinds.map(|options| change(&options)).collect()
    };
    let all_outputs = || OptionalOutput::ALL.iter().copied().collect::<BTreeSet<_>>();

    for (name, checkpoint) in golden_language_models() {
        for options in each_profile(&GraphOptions::clone) {
            export(&name, &checkpoint, &options);
        }
    }
    let tiny = golden("tiny");
    for task in [Task::CausalLm, Task::Backbone] {
        let options = each_profile(&|options| GraphOptions {
            task,
            optional_outputs: all_outputs(),
            ..options.clone()
        });
        for options in options {
            export("tiny with all outputs", &tiny, &options);
        }
    }
    for way in every_way() {
        export(&format!("{way:?}"), &tiny, &way.options(Task::CausalLm));
    }
    for overrides in [
        vec!["f32:attention"],
        vec!["f16:mlp", "bf16:kv_proj"],
        vec!["f32:lm_head"],
        vec!["bf16:lm_head", "int8/16:layers.1.mlp"],
    ] {
        for profile in Profile::ALL {
            let way = Way { overrides: overrides.clone(), ..Way::new(Precision::Q4, *profile) };
            export(&format!("{way:?}"), &tiny, &way.options(Task::CausalLm));
        }
    }
    for opset in Opset::MINIMUM.version()..=Opset::MAXIMUM.version() {
        let opset = Opset::new(opset).unwrap();
        for profile in [Profile::Portable, Profile::OnnxRuntime] {
            let options = Way::new(Precision::F32, profile).options(Task::CausalLm);
            export(&format!("opset {opset}"), &tiny, &GraphOptions { opset, ..options });
        }
    }
    for activation in ["gelu", "gelu_new", "relu"] {
        let (_folder, checkpoint) = changed("tiny", "activation_function", json!(activation));
        for options in each_profile(&GraphOptions::clone) {
            export(activation, &checkpoint, &options);
        }
    }
    for pad_token_id in [json!(0), Value::Null] {
        let (_folder, checkpoint) = changed("classifier", "pad_token_id", pad_token_id.clone());
        let options = each_profile(&|options| GraphOptions {
            task: Task::SequenceClassification,
            optional_outputs: all_outputs(),
            ..options.clone()
        });
        for options in options {
            export(&format!("a classifier with the padding token {pad_token_id}"), &checkpoint, &options);
        }
    }
    for experts in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let sizes = Sizes { hidden: 24, intermediate: 12, experts };
        let small =
            checkpoint(folder.path(), Dtype::F32, sizes, |_, tensor, index| ((tensor + index) % 7) as f32);
        for options in each_profile(&GraphOptions::clone) {
            export(&format!("{experts} experts, heads of width 2"), &small, &options);
        }
    }
}

/// How an operator occurs in some graphs.
#[derive(Debug, Default)]
struct Occurrence {
    operands: BTreeSet<usize>,
    results: BTreeSet<usize>,
    attributes: BTreeSet<(String, AttributeKind)>,
}

#[test]
fn every_written_graph_is_accepted_and_needs_the_whole_table_of_operators() {
    let mut found: BTreeMap<(String, String), Occurrence> = BTreeMap::new();
    every_export(|what, exported| {
        let GraphRecord { precision, profile, .. } = exported.record;
        exported.check().unwrap_or_else(|error| panic!("{what}, {precision} {profile}: {error}"));
        let model = exported.model();
        assert_eq!(
            model.to_bytes(),
            std::fs::read(exported.path()).unwrap(),
            "{what}, {precision} {profile}"
        );
        for node in model.graph.unwrap().node {
            let key = (node.domain().to_owned(), node.op_type().to_owned());
            let occurrence = found.entry(key).or_default();
            occurrence.operands.insert(node.input.len());
            occurrence.results.insert(node.output.len());
            occurrence.attributes.extend(node.attribute.iter().map(|attribute| {
                let kind = match attribute {
                    attribute if attribute.i.is_some() => AttributeKind::Integer,
                    attribute if attribute.f.is_some() => AttributeKind::Float,
                    attribute if attribute.s.is_some() => AttributeKind::Text,
                    attribute if attribute.t.is_some() => AttributeKind::Tensor,
                    _ => AttributeKind::Integers,
                };
                (attribute.name().to_owned(), kind)
            }));
        }
    });
    for operator in ExportedOperator::all() {
        let key = (operator.domain.to_owned(), operator.name.to_owned());
        let Some(Occurrence { operands, results, attributes }) = found.remove(&key) else {
            panic!("no graph has {key:?}");
        };
        assert_eq!(operands.first(), Some(&operator.least_operands), "{key:?}");
        if operator.most_operands.is_some() {
            assert_eq!(operands.last().copied(), operator.most_operands, "{key:?}");
        }
        assert_eq!(results, BTreeSet::from([operator.results]), "{key:?}");
        let expected = operator.attributes.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
        assert_eq!(attributes, expected.collect(), "{key:?}");
    }
    assert!(found.is_empty(), "the table does not have {:?}", found.keys());
}
