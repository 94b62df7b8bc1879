//! `transformers_weights` of `config.json`: the file of the weights.

use jetmoe_checkpoint::{Checkpoint, names};
use serde_json::{Value, json};

use crate::fixtures::tiny;

#[test]
fn the_configuration_can_name_the_file_or_the_index_of_the_weights() {
    let folder = tiny().with("transformers_weights", json!("other.safetensors")).write();
    std::fs::rename(folder.path().join(names::WEIGHTS), folder.path().join("other.safetensors")).unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());
    let folder =
        tiny().with("transformers_weights", json!("other.index.json")).write_sharded(|index| index == 0);
    let index = folder.path().join(names::WEIGHTS_INDEX);
    std::fs::rename(index, folder.path().join("other.index.json")).unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());
    assert!(Checkpoint::open(tiny().with("transformers_weights", json!(null)).write().path()).is_ok());
}

#[test]
fn what_names_no_file_of_the_folder_is_refused_by_file_and_key() {
    let refused = |value: Value, problem: &str| {
        let folder = tiny().with("transformers_weights", value).write();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        let expected = format!(
            "{} is not a valid JetMoE configuration:\n  - transformers_weights: is {problem}",
            folder.path().join("config.json").display()
        );
        assert_eq!(error, expected);
    };
    refused(json!(3), "3, expected the name of a file");
    refused(json!(["model.safetensors"]), "[\"model.safetensors\"], expected the name of a file");
    for outside in ["../model.safetensors", "/model.safetensors", "a/../../model.safetensors", "C:model", ""]
    {
        refused(json!(outside), &format!("{outside:?}, expected the name of a file inside of the folder"));
    }
    for absent in ["other.safetensors", "other.index.json", "folder/model.safetensors"] {
        refused(
            json!(absent),
            &format!("{absent:?}, and the folder has no such file; add it, or remove the key"),
        );
    }
}
