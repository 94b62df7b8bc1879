//! Folders to run `jetmoe` in, with checkpoints and their artifacts.

use std::path::{Path, PathBuf};

use jetmoe::artifact::{OptionalOutput, Task, names};
use jetmoe::checkpoint::{Checkpoint, Digest, names as checkpoint_names};
use jetmoe::export::{ExportOptions, export};
use jetmoe_rt::cache_folder;
use jetmoe_testing::{Cache, TestContext, files, fixtures};
use serde_json::Value;

pub(crate) fn new_context() -> TestContext {
    TestContext::new("jetmoe", env!("CARGO_BIN_EXE_jetmoe"), cache_folder().as_deref())
}

/// A context with a checkpoint of the fixtures, and its artifact as `artifact`.
pub(crate) fn context_with_artifact(checkpoint: &str) -> TestContext {
    context_with_artifact_for(checkpoint, None, &[])
}

/// As [`context_with_artifact`], for a task and with outputs beyond its own.
pub(crate) fn context_with_artifact_for(
    checkpoint: &str,
    task: Option<Task>,
    outputs: &[OptionalOutput],
) -> TestContext {
    let context = new_context();
    context.fixture(checkpoint);
    let artifact = context.path("artifact");
    files::copy_folder(&exported_fixture(checkpoint, task, outputs), &artifact);
    files::edit_json(&artifact.join(names::MANIFEST), |manifest| {
        manifest["checkpoint"]["source"] = context.path(checkpoint).to_str().unwrap().into();
    });
    context
}

/// Changes `config.json` of the context's artifact, and its digest in the manifest.
pub(crate) fn edit_config(context: &TestContext, edit: impl FnOnce(&mut Value)) {
    let path = context.path("artifact").join(checkpoint_names::CONFIG);
    files::edit_json(&path, edit);
    let digest = Digest::of_file(&path).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    files::edit_json(&context.path("artifact").join(names::MANIFEST), |manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["path"] == checkpoint_names::CONFIG).unwrap();
        file["size"] = size.into();
        file["sha256"] = digest.to_string().into();
    });
}

/// An artifact of a fixture, exported once for all tests. The folder has the same name in every run, so that runs leave
/// no more than one behind.
fn exported_fixture(checkpoint: &str, task: Option<Task>, outputs: &[OptionalOutput]) -> PathBuf {
    static EXPORTED: Cache<String, PathBuf> = Cache::new();
    let outputs: Vec<String> = outputs.iter().map(OptionalOutput::to_string).collect();
    let key = format!(
        "{checkpoint} {} {}",
        task.map_or("own".to_owned(), |task| task.to_string()),
        outputs.join(" ")
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("artifacts-of-commands").join(&key);
    let exported = EXPORTED.get(key, || {
        let _ = std::fs::remove_dir_all(&folder);
        let outputs: Vec<OptionalOutput> = outputs.iter().map(|output| output.parse().unwrap()).collect();
        export_checkpoint(&fixtures::checkpoint(checkpoint), &folder, task, &outputs);
        folder
    });
    exported.to_path_buf()
}

/// Exports a checkpoint.
pub(crate) fn export_checkpoint(
    source: &Path,
    output: &Path,
    task: Option<Task>,
    outputs: &[OptionalOutput],
) {
    let options = ExportOptions {
        task,
        optional_outputs: outputs.iter().copied().collect(),
        ..ExportOptions::new(source.to_str().unwrap(), output)
    };
    export(&Checkpoint::open(source).unwrap(), &options).unwrap();
}

/// Makes the artifact as the hub's cache holds one: every file is a link to a file named by its digest.
pub(crate) fn replace_by_links(context: &TestContext) {
    let (artifact, blobs) = (context.path("artifact"), context.path("blobs"));
    std::fs::create_dir(&blobs).unwrap();
    for (number, name) in context.files("artifact").into_iter().enumerate() {
        let (file, blob) = (artifact.join(&name), blobs.join(format!("{number:040}")));
        if file.is_file() {
            std::fs::rename(&file, &blob).unwrap();
            std::os::unix::fs::symlink(&blob, &file).unwrap();
        }
    }
}

/// What a command says before it opens the checkpoint that the manifest of the context's artifact names.
pub(crate) fn remembered_checkpoint(checkpoint: &str) -> String {
    format!("the checkpoint is [FOLDER]/{checkpoint}, as artifact/{} says\n", names::MANIFEST)
}
