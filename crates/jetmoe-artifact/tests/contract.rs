//! What an artifact is: files that a manifest vouches for, and graphs whose names and shapes are a contract.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jetmoe_artifact::{
    Artifact, ArtifactFile, Axis, CheckpointRecord, ElementType, Error, GraphRecord, InputName,
    MANIFEST_SCHEMA, Manifest, ModelPart, OptionalOutput, OutputName, Precision, Profile, Signature,
    StorageOverride, Task, TensorRecord, VerificationRecord, WeightFormat, WeightPlan, names,
};
use jetmoe_checkpoint::{Digest, ModelConfig};
use jetmoe_testing::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "contract/caches.rs"]
mod caches;
#[path = "contract/edits.rs"]
mod edits;
#[path = "contract/untrusted.rs"]
mod untrusted;

fn config(name: &str) -> ModelConfig {
    ModelConfig::read(&fixtures::checkpoint(name).join("config.json")).unwrap()
}

/// Writes a file and answers its entry.
fn write(folder: &Path, path: &str, content: &[u8]) -> ArtifactFile {
    fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
    fs::write(folder.join(path), content).unwrap();
    ArtifactFile::of_content(path, content)
}

/// An artifact whose graph and weights are no such thing; nothing here looks into them.
fn artifact() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let graph_file = names::graph_file(Profile::Portable, Precision::F32);
    let config = fs::read(fixtures::checkpoint("tiny").join("config.json")).unwrap();
    let tensors = [1e-6, f64::INFINITY].map(|error| TensorRecord {
        name: "logits".to_owned(),
        max_absolute_error: error,
        max_relative_error: error,
    });
    let manifest = Manifest {
        schema_version: MANIFEST_SCHEMA,
        tool_version: "0.1.0".to_owned(),
        checkpoint: CheckpointRecord {
            source: "owner/name".to_owned(),
            revision: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            digest: Digest::of_bytes(b"weights"),
        },
        files: vec![write(folder.path(), "config.json", &config)],
        graphs: vec![GraphRecord {
            task: Task::CausalLm,
            precision: Precision::F32,
            profile: Profile::Portable,
            opset: 21,
            optional_outputs: BTreeSet::from([OptionalOutput::RouterLogits]),
            weights: None,
            kv_cache: None,
            stored: BTreeMap::from([(WeightFormat::F32, 7)]),
            calibration: None,
            graph: write(folder.path(), &graph_file, b"graph"),
            data: write(folder.path(), &names::data_file(&graph_file), b"weights"),
            verification: vec![VerificationRecord {
                backend: "ort 1.32.0".to_owned(),
                passed: false,
                tokens: 31,
                tensors: tensors.to_vec(),
            }],
        }],
    };
    manifest.write(folder.path()).unwrap();
    folder
}

fn edit_manifest(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join(names::MANIFEST);
    let mut manifest = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn a_manifest_reads_back_as_it_was_written_even_with_errors_that_are_no_numbers() {
    let folder = artifact();
    let manifest = Manifest::read(folder.path()).unwrap();
    let tensors = &manifest.graphs[0].verification[0].tensors;
    assert_eq!(tensors[0].max_absolute_error, 1e-6);
    assert_eq!(tensors[1].max_relative_error, f64::INFINITY);
    manifest.write(folder.path()).unwrap();
    assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let partial: Vec<_> = files.filter(|name| name.to_string_lossy().ends_with(".partial")).collect();
    assert!(partial.is_empty(), "{partial:?}");
}

#[test]
fn an_artifact_knows_its_files_graphs_and_configuration() {
    let folder = artifact();
    assert!(Artifact::is_artifact(folder.path()));
    let artifact = Artifact::open(folder.path()).unwrap();
    artifact.check_digests().unwrap();
    assert_eq!(artifact.config(), &config("tiny"));
    let graph = artifact.graph(Some(Precision::F32), Some(Profile::Portable)).unwrap();
    assert_eq!(artifact.path(&graph.graph), folder.path().join("onnx/model.onnx"));
    assert_eq!(graph.data.path, "onnx/model.onnx_data");
    assert_eq!(
        artifact.signature(graph),
        Signature::new(
            artifact.config(),
            graph.task,
            graph.precision,
            graph.profile,
            &graph.optional_outputs
        )
    );
}

#[test]
fn a_folder_without_a_manifest_is_no_artifact() {
    let folder = artifact();
    fs::remove_file(folder.path().join(names::MANIFEST)).unwrap();
    assert!(!Artifact::is_artifact(folder.path()));
    let error = Artifact::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAnArtifact { is_checkpoint: false, .. }), "{error}");
    assert!(matches!(Artifact::open(folder.path().join("nothing")), Err(Error::NotFound { .. })));
}

#[test]
fn a_checkpoint_is_named_as_one_with_the_way_to_export_it() {
    for name in ["tiny", "bf16-sharded"] {
        let folder = jetmoe_testing::fixtures::checkpoint(name);
        let error = Artifact::open(&folder).unwrap_err();
        assert!(matches!(error, Error::NotAnArtifact { is_checkpoint: true, .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("{} is a checkpoint, not an artifact", folder.display())),
            "{message}"
        );
        assert!(message.contains("export it with jetmoe-export"), "{message}");
    }
}

#[test]
fn a_file_that_is_missing_longer_shorter_or_changed_is_named() {
    for name in ["onnx/model.onnx", "onnx/model.onnx_data"] {
        let folder = artifact();
        let path = folder.path().join(name);
        let content = fs::read(&path).unwrap();

        fs::write(&path, [&content[..], b"more"].concat()).unwrap();
        let error = Artifact::open(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::WrongSize { path: named, .. } if *named == path), "{error}");
        fs::write(&path, &content[1..]).unwrap();
        let error = Artifact::open(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::WrongSize { path: named, .. } if *named == path), "{error}");

        let mut changed = content.clone();
        changed[0] ^= 1;
        fs::write(&path, changed).unwrap();
        let error = Artifact::open(folder.path()).and_then(|artifact| artifact.check_digests()).unwrap_err();
        assert!(matches!(&error, Error::Changed { path: named } if *named == path), "{error}");

        fs::remove_file(&path).unwrap();
        let error = Artifact::open(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::MissingFile { path: named } if *named == path), "{error}");
    }
}

#[test]
fn a_graph_that_changed_after_the_artifact_was_opened_is_refused() {
    let folder = artifact();
    let artifact = Artifact::open(folder.path()).unwrap();
    let graph = artifact.graph(None, None).unwrap();
    let path = artifact.path(&graph.graph);
    let content = fs::read(&path).unwrap();
    assert_eq!(artifact.read_graph(graph).unwrap(), content);

    let mut changed = content.clone();
    changed[0] ^= 1;
    fs::write(&path, changed).unwrap();
    let error = artifact.read_graph(graph).unwrap_err();
    assert!(matches!(&error, Error::Changed { path: named } if *named == path), "{error}");
    fs::write(&path, [&content[..], b"more"].concat()).unwrap();
    let error = artifact.read_graph(graph).unwrap_err();
    assert!(matches!(&error, Error::WrongSize { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    let error = artifact.read_graph(graph).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { .. }), "{error}");
}

#[test]
fn a_newer_manifest_is_refused_by_its_version_whatever_else_it_holds() {
    let folder = artifact();
    edit_manifest(folder.path(), |manifest| *manifest = json!({ "schema_version": MANIFEST_SCHEMA + 1 }));
    let error = Manifest::read(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NewerSchema { found, .. } if found == MANIFEST_SCHEMA + 1), "{error}");
}

#[test]
fn a_damaged_manifest_is_refused_with_its_place() {
    let folder = artifact();
    for damaged in ["", "{", "[]", "{\"schema_version\": 1}", "{\"schema_version\": \"one\"}"] {
        fs::write(folder.path().join(names::MANIFEST), damaged).unwrap();
        let error = Artifact::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("jetmoe.json"), "{error}");
    }
}

#[test]
fn a_manifest_may_name_files_of_the_artifact_only() {
    for outside in ["../precious", "/etc/passwd", "onnx/../../precious", "", "onnx//x", "..\\x", "C:x", "./x"]
    {
        for place in ["/files/0/path", "/graphs/0/graph/path", "/graphs/0/data/path"] {
            let folder = artifact();
            edit_manifest(folder.path(), |manifest| *manifest.pointer_mut(place).unwrap() = json!(outside));
            let error = Manifest::read(folder.path()).unwrap_err();
            assert!(
                matches!(&error, Error::FileOutside { file, .. } if file == outside),
                "{outside}: {error}"
            );
        }
    }
}

#[test]
fn a_graph_that_is_not_there_is_refused_with_those_that_are() {
    let folder = artifact();
    edit_manifest(folder.path(), |manifest| manifest["graphs"] = json!([]));
    let error = Artifact::open(folder.path())
        .unwrap()
        .graph(Some(Precision::F32), Some(Profile::Portable))
        .unwrap_err();
    assert!(matches!(&error, Error::NoSuchGraph { available, .. } if available.is_empty()), "{error}");
}

#[test]
fn words_read_back_as_what_they_stand_for() {
    for task in Task::ALL {
        assert_eq!(task.to_string().parse(), Ok(*task));
        assert_eq!(json!(task), json!(task.to_string()));
    }
    for output in OptionalOutput::ALL {
        assert_eq!(output.to_string().parse(), Ok(*output));
        assert_eq!(json!(output), json!(output.to_string()));
    }
    for precision in Precision::ALL {
        assert_eq!(precision.to_string().parse(), Ok(*precision));
        assert_eq!(json!(precision), json!(precision.to_string()));
    }
    for storage in WeightFormat::ALL {
        assert_eq!(json!(storage), json!(storage.to_string()));
    }
    for part in ModelPart::ALL {
        assert_eq!(json!(part), json!(part.to_string()));
    }
    for profile in Profile::ALL {
        assert_eq!(json!(profile), json!(profile.to_string()));
    }
    let error = "chat".parse::<Task>().unwrap_err().to_string();
    assert_eq!(error, "unknown task \"chat\"; known: causal-lm, backbone, sequence-classification");
}

#[test]
fn the_signature_of_a_language_model() {
    let config = config("odd");
    let signature =
        Signature::new(&config, Task::CausalLm, Precision::F32, Profile::Portable, &BTreeSet::new());
    let inputs: Vec<String> = signature.inputs.iter().map(|input| input.name.to_string()).collect();
    assert_eq!(inputs[..3], ["input_ids", "attention_mask", "position_ids"]);
    assert_eq!(inputs[3..5], ["past_key_values.0.key", "past_key_values.0.value"]);
    assert_eq!(inputs.len(), 3 + 2 * config.num_hidden_layers);
    let outputs: Vec<String> = signature.outputs.iter().map(|output| output.name.to_string()).collect();
    assert_eq!(outputs[..3], ["logits", "present.0.key", "present.0.value"]);
    assert_eq!(outputs.len(), 1 + 2 * config.num_hidden_layers);
    let shape = |axes: &[Axis]| axes.iter().map(Axis::to_string).collect::<Vec<_>>().join(", ");
    assert_eq!(shape(&signature.inputs[1].shape), "batch_size, past_sequence_length + sequence_length");
    assert_eq!(
        shape(&signature.inputs[3].shape),
        format!("batch_size, {}, past_sequence_length, {}", config.num_key_value_heads, config.kv_channels)
    );
    assert_eq!(
        shape(&signature.outputs[0].shape),
        format!("batch_size, sequence_length, {}", config.vocab_size)
    );
}

#[test]
fn a_classifier_has_no_cache_and_without_a_padding_token_takes_one_sequence() {
    let mut config = config("classifier");
    let signature = Signature::new(
        &config,
        Task::SequenceClassification,
        Precision::F32,
        Profile::Portable,
        &BTreeSet::new(),
    );
    assert_eq!((signature.inputs.len(), signature.outputs.len()), (3, 1));
    assert_eq!(signature.inputs[1].shape, [Axis::BatchSize, Axis::SequenceLength]);
    assert_eq!(signature.outputs[0].shape, [Axis::BatchSize, Axis::Fixed(3)]);
    config.pad_token_id = None;
    let signature = Signature::new(
        &config,
        Task::SequenceClassification,
        Precision::F32,
        Profile::Portable,
        &BTreeSet::new(),
    );
    assert_eq!(signature.inputs[0].shape, [Axis::Fixed(1), Axis::SequenceLength]);
}

#[test]
fn optional_outputs_come_last_and_in_order() {
    let config = config("tiny");
    let all = OptionalOutput::ALL.iter().copied().collect();
    let signature = Signature::new(&config, Task::Backbone, Precision::F32, Profile::Portable, &all);
    let outputs: Vec<String> = signature.outputs.iter().map(|output| output.name.to_string()).collect();
    assert_eq!(outputs[0], "last_hidden_state");
    let optional = [
        "hidden_states.0",
        "hidden_states.1",
        "hidden_states.2",
        "attn_router_logits.0",
        "attn_router_logits.1",
        "mlp_router_logits.0",
        "mlp_router_logits.1",
    ];
    assert_eq!(outputs[1 + 2 * config.num_hidden_layers..], optional);
}

#[test]
fn the_name_of_an_output_reads_back_and_any_other_is_refused() {
    let config = config("tiny");
    let all = OptionalOutput::ALL.iter().copied().collect();
    for task in Task::ALL {
        for output in Signature::new(&config, *task, Precision::F32, Profile::Portable, &all).outputs {
            assert_eq!(output.name.to_string().parse::<OutputName>().ok(), Some(output.name));
        }
    }
    for other in
        ["", "logit", "present.0", "present.x.key", "present.0.keys", "hidden_states.0.1", "past.0.key"]
    {
        assert!(other.parse::<OutputName>().is_err(), "{other}");
    }
    assert_eq!(InputName::PastValue(3).to_string(), "past_key_values.3.value");
}

#[test]
fn the_cache_of_a_float16_graph_is_float16_and_everything_else_float32() {
    let config = config("tiny");
    for precision in Precision::ALL {
        let signature =
            Signature::new(&config, Task::CausalLm, *precision, Profile::Portable, &BTreeSet::new());
        let expected = match precision {
            Precision::F16 | Precision::Q4F16 => ElementType::Float16,
            _ => ElementType::Float32,
        };
        assert!(signature.inputs[3..].iter().all(|input| input.element == expected), "{precision}");
        assert_eq!(signature.outputs[0].element, ElementType::Float32);
        assert!(signature.outputs[1..].iter().all(|output| output.element == expected), "{precision}");
    }
}

#[test]
fn a_native_graph_has_the_contract_of_onnx_runtimes_and_a_folder_of_its_own() {
    for case in ["tiny", "odd", "classifier"] {
        let config = config(case);
        let task = Task::of_architecture(config.architecture);
        for optional in [BTreeSet::new(), OptionalOutput::ALL.iter().copied().collect()] {
            let [native, onnxruntime] = [Profile::Native, Profile::OnnxRuntime]
                .map(|profile| Signature::new(&config, task, Precision::Q4, profile, &optional));
            assert_eq!(native, onnxruntime, "{case}");
        }
    }
    assert_eq!(names::graph_file(Profile::Native, Precision::Q4), "onnx/native/model_q4.onnx");
}

#[test]
fn the_native_profile_has_graphs_of_weights_smaller_than_float32_in_float32_arithmetic() {
    let has = |precision: &&Precision| Profile::Native.has(**precision);
    let precisions: Vec<Precision> = Precision::ALL.iter().filter(has).copied().collect();
    assert_eq!(precisions, [Precision::Bf16, Precision::Int8, Precision::Q4]);
}

#[test]
fn of_several_graphs_the_most_exact_is_the_default() {
    let folder = artifact();
    let mut manifest = Manifest::read(folder.path()).unwrap();
    for precision in [Precision::Q4, Precision::Bf16] {
        let graph = GraphRecord { precision, ..manifest.graphs[0].clone() };
        manifest.graphs.insert(0, graph);
    }
    let chosen =
        |manifest: &Manifest, precision| manifest.graph(precision, None).map(|graph| graph.precision);
    assert_eq!(chosen(&manifest, None), Some(Precision::F32));
    assert_eq!(chosen(&manifest, Some(Precision::Q4)), Some(Precision::Q4));
    assert_eq!(chosen(&manifest, Some(Precision::Int8)), None);
    manifest.graphs.retain(|graph| graph.precision != Precision::F32);
    assert_eq!(chosen(&manifest, None), Some(Precision::Bf16));
}

#[test]
fn an_override_reads_back_as_it_was_written() {
    for text in ["f32:lm_head", "int8:layers.12.mlp", "bf16:kv_proj", "f16:attention", "int4/16:lm_head"] {
        assert_eq!(text.parse::<StorageOverride>().unwrap().to_string(), text);
    }
    for (text, problem) in [
        ("lm_head", "does not name a format and a part"),
        ("f64:lm_head", "unknown storage \"f64\"; known: f32, f16, bf16, int8, int4"),
        ("f32:router", "unknown part \"router\"; known: attention, kv_proj, mlp, lm_head"),
        ("f32:layers.x.mlp", "\"x\" is not a layer number"),
        ("f32:layers.3", "names no part"),
        ("int4/many:lm_head", "\"many\" is no group size"),
        ("f32/16:lm_head", "f32 has no groups; write f32:lm_head"),
        ("f32:layers.3.lm_head", "the head belongs to no layer"),
    ] {
        let error = text.parse::<StorageOverride>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn the_last_entry_that_fits_decides_how_a_part_is_stored() {
    let overrides = ["f16:mlp", "int8:layers.1.mlp", "f32:lm_head"].map(|text| text.parse().unwrap());
    let plan = WeightPlan { overrides: overrides.to_vec(), ..WeightPlan::default() };
    let format = |part, layer| plan.scheme(Precision::Q4, part, layer).format;
    assert_eq!(format(ModelPart::Mlp, Some(0)), WeightFormat::F16);
    assert_eq!(format(ModelPart::Mlp, Some(1)), WeightFormat::Int8);
    assert_eq!(format(ModelPart::Attention, Some(1)), WeightFormat::Int4);
    assert_eq!(format(ModelPart::LmHead, None), WeightFormat::F32);
    plan.check(2).unwrap();
    let plain = WeightPlan::default();
    assert_eq!(plain.scheme(Precision::Q4, ModelPart::LmHead, None).format, WeightFormat::Int8);
    assert_eq!(plain.scheme(Precision::Q4, ModelPart::KvProj, Some(0)).format, WeightFormat::Int4);
    let small = WeightPlan { overrides: vec!["int4/16:lm_head".parse().unwrap()], ..WeightPlan::default() };
    let head = small.scheme(Precision::Q4, ModelPart::LmHead, None);
    assert_eq!((head.format, head.group_size), (WeightFormat::Int4, 16));
    assert_eq!(small.scheme(Precision::Q4, ModelPart::Mlp, Some(0)).group_size, 32);
    let error = plan.check(1).unwrap_err();
    assert_eq!(error.to_string(), "cannot store int8:layers.1.mlp: the model has 1 layers, numbered from 0");
    let error = WeightPlan { group_size: 48, ..WeightPlan::default() }.check(2).unwrap_err();
    assert_eq!(error.to_string(), "groups of 48 weights are not supported; choose one of [16, 32, 64, 128]");
}
