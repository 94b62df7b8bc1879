//! Repositories with artifacts and adapters, and caches that cannot be written.

use jetmoe_artifact::names as artifact_names;
use jetmoe_checkpoint::{names, tokenizer_files};
use jetmoe_testing::hub::{COMMIT, Contents, ID, MockHub};
use serde_json::json;

use super::super::settings::Settings;
use super::{cache, fetch, files, listing, refused, settings, sharded, single};
use crate::{Content, snapshot_commit};

/// A repository with an artifact of two graphs, its checkpoint, and a file that its manifest does not name.
fn artifact() -> Contents {
    let mut contents = single();
    let file = |path: &str| json!({ "path": path, "size": 1, "sha256": "0".repeat(64) });
    let graph = |precision: &str, stem: &str| {
        json!({
            "task": "causal-lm", "precision": precision, "profile": "portable", "opset": 21, "optional_outputs": [],
            "graph": file(&format!("onnx/{stem}.onnx")), "data": file(&format!("onnx/{stem}.onnx_data")),
            "verification": [],
        })
    };
    let manifest = json!({
        "schema_version": 1, "tool_version": "0.1.0",
        "checkpoint": { "source": ID, "digest": "0".repeat(64) },
        "files": [file(names::CONFIG), file(artifact_names::GENAI_CONFIG)],
        "graphs": [graph("f32", "model"), graph("q4", "model_q4")],
    });
    contents.files.insert(artifact_names::MANIFEST.to_owned(), manifest.to_string().into_bytes());
    contents.files.extend(files(&["onnx/model.onnx_data", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data"]));
    contents
}

#[test]
fn an_artifact_is_fetched_with_every_file_that_its_manifest_names() {
    let (hub, cache) = (MockHub::serve(artifact()), cache());
    let settings = settings(&hub.endpoint, &cache);
    let folder = fetch(&settings).unwrap();
    let graphs = ["model.onnx", "model.onnx_data", "model_q4.onnx", "model_q4.onnx_data"];
    assert_eq!(listing(&folder.join("onnx")), graphs);
    // the repository has no genai_config.json, which only other clients read
    assert_eq!(listing(&folder), [names::CONFIG, artifact_names::MANIFEST, "onnx"]);
    let offline = Settings { offline: true, ..settings };
    assert_eq!(fetch(&offline).unwrap(), folder);
    std::fs::remove_file(folder.join("onnx/model_q4.onnx_data")).unwrap();
    assert!(fetch(&offline).unwrap_err().to_string().contains("model_q4.onnx_data"));
}

#[test]
fn an_export_gets_the_checkpoint_of_a_repository_with_both() {
    let (hub, cache) = (MockHub::serve(artifact()), cache());
    let settings = Settings { content: Content::Checkpoint, ..settings(&hub.endpoint, &cache) };
    let folder = fetch(&settings).unwrap();
    assert_eq!(listing(&folder), [names::CONFIG, names::WEIGHTS, names::TOKENIZER]);
}

#[test]
fn every_file_of_a_tokenizer_is_fetched() {
    let mut contents = single();
    contents.files.extend(files(&names::TOKENIZER_FILES));
    let templates = ["additional_chat_templates/rag.jinja", "additional_chat_templates/tool_use.jinja"];
    contents.files.extend(files(&templates));
    // files of something else
    contents.files.extend(files(&[
        "additional_chat_templates/notes.txt",
        "additional_chat_templates/old/rag.jinja",
        "other/tokenizer.model",
    ]));
    let (hub, cache) = (MockHub::serve(contents), cache());
    let folder = fetch(&settings(&hub.endpoint, &cache)).unwrap();
    let mut expected: Vec<&str> =
        [names::CONFIG, names::WEIGHTS].into_iter().chain(names::TOKENIZER_FILES).chain(templates).collect();
    expected.sort_unstable();
    assert_eq!(hub.downloads(), expected);
    assert!(expected.contains(&"tokenizer.model") && expected.contains(&"chat_template.json"));
    assert_eq!(tokenizer_files(&folder).unwrap(), [&names::TOKENIZER_FILES[..], &templates].concat());
}

#[test]
fn an_artifact_with_a_graph_missing_is_refused() {
    let mut contents = artifact();
    contents.files.remove("onnx/model_q4.onnx_data");
    let message = refused(contents, |_| ());
    assert!(
        message.contains("its jetmoe.json names onnx/model_q4.onnx_data, which the repository does not have"),
        "{message}"
    );
}

#[test]
fn an_adapter_is_named() {
    let contents = Contents { files: files(&[names::ADAPTER_CONFIG, "adapter.bin"]), ..Contents::default() };
    let message = refused(contents, |_| ());
    assert!(
        message.contains("it is an adapter (") && message.contains("not a model\n  merge it:"),
        "{message}"
    );
}

/// Not even the commit of the branch is written.
#[cfg(unix)]
#[test]
fn a_complete_cache_is_used_as_it_is_where_it_cannot_be_written() {
    for contents in [single, sharded, artifact] {
        let (hub, cache) = (MockHub::serve(contents()), cache());
        let settings = settings(&hub.endpoint, &cache);
        let folder = fetch(&settings).unwrap();
        // root may write to read-only folders, so the folder of the branches is a file
        let refs = cache.path().join("models--jetmoe--jetmoe-mini/refs");
        std::fs::remove_dir_all(&refs).unwrap();
        std::fs::write(&refs, "").unwrap();
        let locks = cache.path().join(".locks");
        let _ = std::fs::remove_dir_all(&locks);
        std::fs::write(&locks, "").unwrap();
        let downloads = hub.downloads().len();
        assert_eq!(fetch(&settings).unwrap(), folder);
        assert_eq!(hub.downloads().len(), downloads);
    }
}

#[test]
fn the_commit_of_a_snapshot_is_the_name_of_its_folder() {
    let (hub, cache) = (MockHub::serve(single()), cache());
    let folder = fetch(&settings(&hub.endpoint, &cache)).unwrap();
    assert_eq!(snapshot_commit(&folder), Some(COMMIT));
    assert_eq!(snapshot_commit(cache.path()), None);
    assert_eq!(snapshot_commit(&cache.path().join(COMMIT)), None);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let error = refused(single(), |settings| {
        let file = settings.cache_dir.join("file");
        std::fs::write(&file, "").unwrap();
        settings.cache_dir = file;
    });
    assert!(
        error.contains("cannot write to the cache CACHE/file: ") && error.contains("HF_HUB_CACHE"),
        "{error}"
    );
}
