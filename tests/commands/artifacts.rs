//! Every command rejects damaged artifacts and names the damage.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jetmoe::export::{ExportOptions, export};
use jetmoe_rt::{LoadOptions, Model};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{CommandOutput, assert_text, assert_transcript};
use serde_json::json;

use crate::context::{context_with_artifact, replace_by_links};

const GRAPH: &str = "onnx/model.onnx";
const DATA: &str = "onnx/model.onnx_data";

/// Damages an artifact, which `run`, `verify` and `eval` must refuse alike, saying all of `says`.
#[track_caller]
fn damaged(damage: impl FnOnce(&Path), says: &[&str]) -> CommandOutput {
    let context = context_with_artifact("jetmoe-mini");
    damage(&context.path("artifact"));
    fs::write(context.path("held-out.jsonl"), "{\"text\": \"And God said\"}\n").unwrap();
    let eval = context.run("jetmoe eval --model artifact --text held-out.jsonl");
    let verify = context.run("jetmoe verify --model artifact");
    let run = context.run("jetmoe run --model artifact --prompt \"In the beginning\"");
    for part in says {
        assert!(run.refused().contains(part), "{run:#?}\ndoes not say {part:?}");
    }
    assert_eq!(verify.refused(), run.refused());
    assert_eq!(eval.refused(), run.refused());
    run
}

fn overwrite(path: &Path, place: u64) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(b"damage").unwrap();
}

#[test]
fn truncated_weights() {
    let truncate = |artifact: &Path| {
        File::options().write(true).open(artifact.join(DATA)).unwrap().set_len(1000).unwrap();
    };
    assert_transcript!(damaged(
        truncate,
        &["artifact/onnx/model.onnx_data holds 1000 bytes", "export again"]
    ));
}

#[test]
fn a_changed_graph() {
    let change = |artifact: &Path| overwrite(&artifact.join(GRAPH), 5000);
    assert_transcript!(damaged(
        change,
        &["artifact/onnx/model.onnx is not the file", "sha256", "export again"]
    ));
}

/// Without the option they are used.
#[test]
fn changed_weights_are_refused_by_verify_digests() {
    let context = context_with_artifact("jetmoe-mini");
    overwrite(&context.path("artifact").join(DATA), 5000);
    fs::write(context.path("held-out.jsonl"), "{\"text\": \"And God said\"}\n").unwrap();
    let run = "jetmoe run --model artifact --prompt \"In the beginning\" --max-new-tokens 2";
    context.run(run).succeeded();
    let refused = context.run(&format!("{run} --verify-digests"));
    for options in ["--private-copy .", "--verify-digests --backend tract"] {
        assert_eq!(context.run(&format!("{run} {options}")).refused(), refused.refused());
    }
    let eval = context.run("jetmoe eval --model artifact --text held-out.jsonl --verify-digests");
    assert_eq!(eval.refused(), refused.refused());
    assert_transcript!(refused);
}

#[test]
fn digests_and_copies_of_a_checkpoint_are_refused() {
    let context = context_with_artifact("jetmoe-mini");
    for (model, options, says) in [
        ("jetmoe-mini", "--verify-digests", "--verify-digests is for artifacts"),
        ("jetmoe-mini", "--private-copy .", "--private-copy is for artifacts"),
        (
            "artifact",
            "--backend reference --private-copy .",
            "it reads the checkpoint, of which no private copy is made",
        ),
    ] {
        let output = context.run(&format!("jetmoe run --model {model} --prompt a {options}"));
        assert!(output.refused().contains(says), "{output:#?}");
    }
    let verify = context.run("jetmoe verify --model artifact --private-copy .");
    assert!(verify.refused().contains("leave it out"), "{verify:#?}");
}

#[test]
fn a_changed_configuration() {
    let change = |artifact: &Path| overwrite(&artifact.join("config.json"), 50);
    damaged(change, &["artifact/config.json was edited after the export", "jetmoe accept-edits artifact"]);
}

/// What an editor and git do to an artifact.
#[test]
fn edits_are_accepted() {
    let context = context_with_artifact("jetmoe-mini");
    let artifact = context.path("artifact");
    let text = |name: &str| fs::read_to_string(artifact.join(name)).unwrap();
    fs::write(artifact.join("genai_config.json"), "{ \"mine\": true }").unwrap();
    for name in ["config.json", "tokenizer_config.json", "chat_template.jinja"] {
        fs::write(artifact.join(name), text(name).replace('\n', "\r\n")).unwrap();
    }
    let run = "jetmoe run --model artifact --prompt \"In the beginning\" --max-new-tokens 4";
    context.run(run).succeeded();
    context.run("jetmoe inspect artifact").succeeded();
    context.run("jetmoe verify --model artifact --checkpoint jetmoe-mini --backend tract").succeeded();
    fs::remove_file(artifact.join("genai_config.json")).unwrap();
    context.run(run).succeeded();

    edit_json(&artifact.join("generation_config.json"), |config| config["max_new_tokens"] = json!(2));
    let refused = context.run(run);
    refused.refused();
    let accepted = context.run("jetmoe accept-edits artifact");
    assert_eq!(accepted.succeeded(), "generation_config.json: accepted\n");
    context.run(run).succeeded();
    context.run("jetmoe verify --model artifact --checkpoint jetmoe-mini --backend tract").succeeded();
    let again = context.run("jetmoe accept-edits artifact");
    assert_eq!((again.status, again.stdout.as_str()), (Some(0), ""));
    assert_transcript!(refused, accepted, again);
}

/// An edit after which no command could load the artifact.
#[test]
fn an_edit_that_cannot_be_read_is_not_accepted() {
    let context = context_with_artifact("jetmoe-mini");
    let artifact = context.path("artifact");
    let manifest = fs::read(artifact.join("jetmoe.json")).unwrap();
    let edits = [
        ("tokenizer.json", "{ \"model\": {} }", "artifact/tokenizer.json cannot be used as a tokenizer"),
        ("tokenizer_config.json", "{", "artifact/tokenizer_config.json is not valid"),
        ("chat_template.jinja", "{% if %}", "artifact/chat_template.jinja is no valid chat template"),
        ("generation_config.json", "{ \"max_new_tokens\": 0 }", "max_new_tokens: is 0"),
        ("config.json", "{ \"model_type\": \"jetmoe\", \"vocab_size\": 0 }", "vocab_size: is 0"),
    ];
    let outputs = edits.map(|(name, edited, says)| {
        let original = fs::read(artifact.join(name)).unwrap();
        fs::write(artifact.join(name), edited).unwrap();
        let output = context.run("jetmoe accept-edits artifact");
        assert!(output.refused().contains(says), "{output:#?}\ndoes not say {says:?}");
        assert_eq!(fs::read(artifact.join("jetmoe.json")).unwrap(), manifest, "{name} was recorded");
        fs::write(artifact.join(name), original).unwrap();
        output
    });
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn changed_weights_are_found_by_verify() {
    let context = context_with_artifact("jetmoe-mini");
    overwrite(&context.path("artifact").join(DATA), 5000);
    let output = context.run("jetmoe verify --model artifact");
    assert!(output.refused().contains("artifact/onnx/model.onnx_data is not the file"));
    assert_transcript!(output);
}

#[test]
fn a_missing_graph() {
    let remove = |artifact: &Path| fs::remove_file(artifact.join(GRAPH)).unwrap();
    assert_transcript!(damaged(remove, &["artifact/onnx/model.onnx is missing", "export again"]));
}

#[test]
fn missing_weights() {
    let remove = |artifact: &Path| fs::remove_file(artifact.join(DATA)).unwrap();
    damaged(remove, &["artifact/onnx/model.onnx_data is missing", "export again"]);
}

#[test]
fn a_manifest_that_is_no_json() {
    let cut = |artifact: &Path| fs::write(artifact.join("jetmoe.json"), "{ \"schema_version\": 1,").unwrap();
    assert_transcript!(damaged(cut, &["artifact/jetmoe.json is not valid", "line 1", "export again"]));
}

#[test]
fn a_manifest_of_a_newer_version() {
    let newer = |artifact: &Path| {
        edit_json(&artifact.join("jetmoe.json"), |manifest| {
            *manifest = json!({ "schema_version": 99, "everything": "else is different" });
        });
    };
    assert_transcript!(damaged(newer, &["artifact/jetmoe.json", "schema version 99", "update jetmoe"]));
}

#[test]
fn a_manifest_that_names_files_elsewhere() {
    let outside = |artifact: &Path| {
        edit_json(&artifact.join("jetmoe.json"), |manifest| {
            manifest["files"][0]["path"] = json!("/etc/passwd")
        });
    };
    assert_transcript!(damaged(outside, &["artifact/jetmoe.json", "\"/etc/passwd\"", "export again"]));
}

#[test]
fn a_manifest_that_lists_no_configuration() {
    let empty = |artifact: &Path| {
        edit_json(&artifact.join("jetmoe.json"), |manifest| manifest["files"] = json!([]));
    };
    damaged(empty, &["artifact/jetmoe.json does not list config.json", "export again"]);
}

#[test]
fn a_manifest_whose_sizes_do_not_add_up() {
    let lie = |artifact: &Path| {
        edit_json(&artifact.join("jetmoe.json"), |manifest| {
            manifest["graphs"][0]["stored"] = json!({ "f32": u64::MAX, "f16": u64::MAX });
        });
    };
    damaged(
        lie,
        &["artifact/jetmoe.json says that \"onnx/model.onnx_data\" has", "18446744073709551615 bytes"],
    );
}

/// Nothing waits for a pipe, and nothing reads a terabyte.
#[cfg(unix)]
#[test]
fn files_that_cannot_be_files_of_an_artifact() {
    use jetmoe_testing::files::{hole, named_pipe};

    for name in ["config.json", "tokenizer.json", GRAPH, DATA] {
        let pipe = |artifact: &Path| {
            fs::remove_file(artifact.join(name)).unwrap();
            named_pipe(&artifact.join(name));
        };
        let path = format!("artifact/{name}: it is a pipe, a socket or a device, not a file");
        damaged(pipe, &["cannot read", &path]);
        let terabyte = |artifact: &Path| hole(&artifact.join(name), 1 << 40);
        damaged(terabyte, &[&format!("artifact/{name} holds 1099511627776 bytes")]);
    }
}

#[test]
fn an_unfinished_export() {
    let unfinished = |artifact: &Path| {
        fs::create_dir(artifact.join("export.partial")).unwrap();
        fs::rename(artifact.join("jetmoe.json"), artifact.join("export.partial/jetmoe.json")).unwrap();
    };
    assert_transcript!(damaged(unfinished, &["artifact is no artifact yet", "export again"]));
}

#[cfg(unix)]
#[test]
fn an_artifact_of_links_runs_in_every_backend() {
    let context = context_with_artifact("jetmoe-mini");
    replace_by_links(&context);
    let backends: Vec<&str> = jetmoe_rt::backends().iter().map(|backend| backend.name()).collect();
    assert!(backends.contains(&"ort") && backends.contains(&"tract"), "{backends:?}");
    for backend in backends {
        let run = format!(
            "jetmoe run --model artifact --backend {backend} --prompt \"In the beginning\" --max-new-tokens 4"
        );
        context.run(&run).succeeded();
    }
    context.run("jetmoe verify --model artifact --checkpoint jetmoe-mini --backend tract").succeeded();
}

/// Re-exports and runs at once: a run sees the old artifact or the new one.
#[test]
fn an_artifact_can_be_replaced_while_others_load_it() {
    let context = context_with_artifact("tiny");
    let folder = context.path("artifact");
    let checkpoint = jetmoe::checkpoint::Checkpoint::open(context.path("tiny")).unwrap();
    let is_done = AtomicBool::new(false);
    let loads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut loads = 0;
            while !is_done.load(Ordering::Relaxed) {
                assert!(jetmoe::artifact::Artifact::is_artifact(&folder));
                Model::load(&folder, &LoadOptions::default()).unwrap();
                loads += 1;
            }
            loads
        });
        for opset in [20, 21, 20, 21, 20, 21] {
            let opset = jetmoe::graph::Opset::new(opset).unwrap();
            let options = ExportOptions { opset, ..ExportOptions::new("tiny", &folder) };
            export(&checkpoint, &options).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(loads > 0);
}
