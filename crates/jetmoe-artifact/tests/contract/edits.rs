//! Artifacts that a user edited, or that an export replaces.

use std::fs;

use jetmoe_artifact::{Artifact, Error, Manifest, names};
use serde_json::json;

use crate::{artifact, edit_manifest, write};

#[test]
fn an_edited_configuration_is_refused_until_it_is_accepted() {
    let folder = artifact();
    let path = folder.path().join("config.json");
    let edited = fs::read_to_string(&path).unwrap().replace("{", "{ \"mine\": 1,");
    fs::write(&path, &edited).unwrap();
    let error = Artifact::open(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::Edited { path: named } if *named == path), "{error}");
    assert_eq!(Artifact::accept_edits(folder.path()).unwrap(), ["config.json"]);
    let manifest = Artifact::open(folder.path()).unwrap().manifest().clone();
    assert!(manifest.files.iter().all(|file| file.accepted == (file.path == "config.json")));
    assert!(Artifact::accept_edits(folder.path()).unwrap().is_empty());

    fs::write(&path, "{}").unwrap();
    assert!(matches!(Artifact::accept_edits(folder.path()), Err(Error::Checkpoint(_))));
    assert_eq!(
        Manifest::read(folder.path()).unwrap(),
        manifest,
        "a configuration that is not valid is not accepted"
    );
    fs::remove_file(&path).unwrap();
    assert!(matches!(Artifact::open(folder.path()), Err(Error::MissingFile { .. })));
}

/// As an export replaces it: without a manifest in between, with the new one staged.
#[test]
fn an_artifact_that_is_being_replaced_is_waited_for() {
    let folder = artifact();
    let (manifest, staging) = (folder.path().join(names::MANIFEST), folder.path().join(names::UNFINISHED));
    fs::create_dir(&staging).unwrap();
    fs::rename(&manifest, staging.join(names::MANIFEST)).unwrap();
    let opened = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            assert!(Artifact::is_artifact(folder.path()));
            Artifact::open(folder.path())
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::rename(staging.join(names::MANIFEST), &manifest).unwrap();
        reader.join().unwrap()
    });
    let artifact = opened.unwrap();
    assert!(artifact.is_current());
    // results of a verification are not another artifact
    edit_manifest(folder.path(), |manifest| manifest["tool_version"] = json!("9"));
    assert!(artifact.is_current());
    edit_manifest(folder.path(), |manifest| manifest["graphs"][0]["data"]["size"] = json!(1));
    assert!(!artifact.is_current());
}

#[test]
fn settings_that_cannot_be_followed_are_accepted_where_no_graph_follows_settings() {
    let folder = artifact();
    let name = "generation_config.json";
    let file = write(folder.path(), name, b"{}");
    edit_manifest(folder.path(), |manifest| {
        manifest["files"].as_array_mut().unwrap().push(serde_json::to_value(&file).unwrap());
    });
    fs::write(folder.path().join(name), "{ \"max_new_tokens\": \"many\" }").unwrap();
    let manifest = Manifest::read(folder.path()).unwrap();
    let error = Artifact::accept_edits(folder.path()).unwrap_err().to_string();
    assert!(error.contains("generation_config.json holds settings"), "{error}");
    assert!(error.contains("max_new_tokens: is \"many\""), "{error}");
    assert_eq!(Manifest::read(folder.path()).unwrap(), manifest, "nothing was recorded");

    edit_manifest(folder.path(), |manifest| manifest["graphs"][0]["task"] = json!("backbone"));
    assert_eq!(Artifact::accept_edits(folder.path()).unwrap(), [name]);
    Artifact::open(folder.path()).unwrap();
}

#[test]
fn edits_of_an_artifact_with_a_damaged_graph_are_not_accepted() {
    let folder = artifact();
    let path = folder.path().join("config.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("{", "{ \"mine\": 1,")).unwrap();
    let manifest = Manifest::read(folder.path()).unwrap();
    fs::write(folder.path().join(&manifest.graphs[0].graph.path), b"grapf").unwrap();
    assert!(matches!(Artifact::accept_edits(folder.path()), Err(Error::Changed { .. })));
    assert_eq!(Manifest::read(folder.path()).unwrap(), manifest, "nothing was recorded");
}
