//! Artifacts that a user edited, or that an export replaces.

use std::fs;

use jetmoe_artifact::{Artifact, Error, Manifest, names};
use serde_json::json;

use crate::{artifact, edit_manifest};

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
