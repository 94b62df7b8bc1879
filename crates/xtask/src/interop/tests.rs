use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{Case, Export, FLOAT32, OPSETS, OUTPUTS, STORAGE_CASES, STORAGES, cases, tasks};

fn case(name: &str) -> Case {
    Case { name: name.to_owned(), checkpoint: PathBuf::from(name), tasks: tasks("") }
}

#[test]
fn every_fixture_is_a_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let names: Vec<_> = cases(&root).unwrap().into_iter().map(|case| case.name).collect();
    for name in ["bf16-sharded", "classifier", "jetmoe-mini", "jetmoe-mini-classifier", "legacy", "tiny"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
}

#[test]
fn a_classifier_is_no_language_model() {
    assert_eq!(
        tasks(r#"{"architectures": ["JetMoeForSequenceClassification"]}"#),
        ["sequence-classification", "backbone"]
    );
    assert_eq!(tasks(r#"{"architectures": ["JetMoEForCausalLM"]}"#), ["causal-lm", "backbone"]);
}

#[test]
fn every_task_is_exported_with_every_set_of_outputs() {
    let case = case("dense");
    let exports = Export::all_of(&case);
    assert_eq!(exports.len(), case.tasks.len() * OUTPUTS.len());
    assert!(exports.iter().all(|export| export.opset.is_none() && *export.storage == FLOAT32));
}

#[test]
fn tiny_is_exported_with_every_opset() {
    let case = case("tiny");
    let opsets: HashSet<_> = Export::all_of(&case).iter().map(|export| export.opset).collect();
    assert_eq!(opsets.len(), OPSETS.len() + 1);
}

#[test]
fn two_cases_are_exported_with_every_storage() {
    for name in STORAGE_CASES {
        let case = case(name);
        let exports = Export::all_of(&case);
        for storage in &STORAGES {
            let of_it: Vec<_> = exports.iter().filter(|export| export.storage == storage).collect();
            assert_eq!(of_it.len(), 1, "{name}, {storage:?}");
            assert_eq!(of_it[0].task, "causal-lm");
            // the checks need router logits to find tokens that were routed differently
            assert!(of_it[0].outputs.contains("router-logits"));
        }
    }
}

#[test]
fn a_folder_says_how_weights_are_stored() {
    for storage in &STORAGES {
        let mut said: Vec<String> = Vec::new();
        let mut arguments = storage.arguments.split_whitespace();
        while let Some(argument) = arguments.next() {
            said.push(match argument {
                "--zero-points" => "zero-points".to_owned(),
                _ => arguments.next().unwrap().replace(':', "-"),
            });
        }
        assert_eq!(storage.folder, said.join("+"));
    }
}

#[test]
fn what_is_compared_with_a_portable_graph_has_one() {
    for folder in STORAGES.iter().filter_map(|storage| storage.folder.strip_suffix("+onnxruntime")) {
        assert!(STORAGES.iter().any(|storage| storage.folder == folder), "{folder}");
    }
}

#[test]
fn every_export_has_a_folder_of_its_own() {
    let case = case("tiny");
    let exports = Export::all_of(&case);
    let folders: HashSet<_> = exports.iter().map(Export::folder).collect();
    assert_eq!(folders.len(), exports.len());
    assert!(folders.contains(Path::new("tiny/causal-lm/hidden-states+router-logits/18/f32")), "{folders:?}");
    assert!(folders.contains(Path::new("tiny/backbone/plain/default/f32")), "{folders:?}");
}
