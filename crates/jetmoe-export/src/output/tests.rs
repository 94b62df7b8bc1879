//! A commit that fails half way, which no command can bring about.

use std::io::Write;

use jetmoe_artifact::{CheckpointRecord, MANIFEST_SCHEMA};
use jetmoe_checkpoint::names as checkpoint_names;

use super::*;

const CONTENT: &[u8] = b"{}";

fn manifest(tool_version: &str) -> Manifest {
    Manifest {
        schema_version: MANIFEST_SCHEMA,
        tool_version: tool_version.to_owned(),
        checkpoint: CheckpointRecord {
            source: "owner/name".to_owned(),
            revision: None,
            digest: Digest::of_bytes(b"weights"),
        },
        files: vec![ArtifactFile::of_content(checkpoint_names::CONFIG, CONTENT)],
        graphs: Vec::new(),
    }
}

fn prepare(folder: &Path) -> OutputFolder {
    OutputFolder::prepare(folder, Digest::of_bytes(b"weights"), Task::CausalLm, false).unwrap()
}

fn write(output: &mut OutputFolder, name: &str) {
    let mut file = output.create(name).unwrap();
    file.write_all(CONTENT).unwrap();
    file.commit().unwrap();
}

#[test]
fn a_commit_that_fails_leaves_no_manifest_and_the_next_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut first = prepare(folder);
    write(&mut first, checkpoint_names::CONFIG);
    first.commit(&manifest("1")).unwrap();
    assert_eq!(Manifest::read(folder).unwrap().tool_version, "1");
    assert!(!folder.join(names::UNFINISHED).exists());

    let mut second = prepare(folder);
    write(&mut second, checkpoint_names::CONFIG);
    // a file that does not become complete
    drop(second.create(checkpoint_names::GENERATION_CONFIG).unwrap());
    let error = second.commit(&manifest("2")).unwrap_err();
    assert!(matches!(error, Error::Io { action: "move the new file to", .. }), "{error}");
    assert!(!folder.join(names::MANIFEST).exists());
    // says whose files these are
    assert_eq!(Manifest::read(&folder.join(names::UNFINISHED)).unwrap().tool_version, "2");

    let mut third = prepare(folder);
    assert!(third.existing().is_some());
    write(&mut third, checkpoint_names::CONFIG);
    third.commit(&manifest("3")).unwrap();
    assert_eq!(Manifest::read(folder).unwrap().tool_version, "3");
    assert!(!folder.join(names::UNFINISHED).exists());
}

#[test]
fn a_folder_has_one_export_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = prepare(folder.path());
    let second = OutputFolder::prepare(folder.path(), Digest::of_bytes(b"weights"), Task::CausalLm, false)
        .unwrap_err();
    assert!(matches!(second, Error::OutputBusy { .. }), "{second}");
    drop(first);
    prepare(folder.path());
}

/// Between the checks and the end of an export, somebody puts a link in the place of a folder.
#[cfg(unix)]
#[test]
fn a_link_that_appears_during_an_export_is_not_followed() {
    let all = tempfile::tempdir().unwrap();
    let (folder, outside) = (all.path().join("artifact"), all.path().join("outside"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("model.onnx"), "mine").unwrap();
    let mut output = prepare(&folder);
    write(&mut output, checkpoint_names::CONFIG);
    write(&mut output, "onnx/model.onnx");
    // in the output folder, and in place of the staging folder
    std::os::unix::fs::symlink(&outside, folder.join("onnx")).unwrap();
    let error = output.commit(&manifest("1")).unwrap_err();
    assert!(matches!(error, Error::OutputEntry { found: EntryKind::Link, .. }), "{error}");

    std::fs::remove_file(folder.join("onnx")).unwrap();
    let mut output = prepare(&folder);
    std::fs::rename(folder.join(names::UNFINISHED), all.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join(names::UNFINISHED)).unwrap();
    write(&mut output, checkpoint_names::CONFIG);
    write(&mut output, "onnx/model.onnx");
    output.commit(&manifest("1")).unwrap();
    assert_eq!(std::fs::read(outside.join("model.onnx")).unwrap(), b"mine");
    assert_eq!(outside.read_dir().unwrap().count(), 1);
    assert_eq!(std::fs::read(folder.join("onnx/model.onnx")).unwrap(), CONTENT);
}
