//! `jetmoe verify`.

use std::fs;

use jetmoe::artifact::{OptionalOutput, Task};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{CommandOutput, TestContext, assert_text, assert_transcript, fixtures};
use serde_json::Value;

use crate::context::{
    context_with_artifact, context_with_artifact_for, export_checkpoint, new_context, remembered_checkpoint,
};

/// An artifact of the case `tiny`, and golden files next to it.
fn tiny() -> TestContext {
    let context = context_with_artifact_for("tiny", None, OptionalOutput::ALL);
    for (case, copy) in
        [("tiny", "golden.safetensors"), ("linear-rope", "golden-of-another-model.safetensors")]
    {
        fs::copy(fixtures::checkpoint(case).join("golden.safetensors"), context.path(copy)).unwrap();
    }
    context
}

/// The widths of columns follow the width of numbers, which differ by machine.
const WIDTHS: [(&str, &str); 2] = [(r"\d+ tokens identical", "[TOKENS] identical"), (r" {2,}", "  ")];

#[test]
fn every_runtime_is_compared_with_the_reference() {
    let output = tiny().run("jetmoe verify --model artifact");
    output.noted(&remembered_checkpoint("tiny"));
    assert_text!(output.transcript(), WIDTHS);
}

#[test]
fn every_backend_is_compared_with_a_golden_file() {
    let output = tiny().run("jetmoe verify --model artifact --golden golden.safetensors");
    output.noted(&remembered_checkpoint("tiny"));
    assert_text!(output.transcript(), WIDTHS);
}

#[test]
fn what_is_out_of_tolerance_ends_with_status_1() {
    let context = tiny();
    let line = "jetmoe verify --model artifact --golden golden-of-another-model.safetensors --backend tract";
    let output = context.run(line);
    assert_eq!((output.status, output.stderr.as_str()), (Some(1), ""));
    assert!(output.stdout.contains("FAILED") && !output.stdout.contains(" ok"), "{output:#?}");
    let json = context.run(&format!("{line} --format json"));
    assert_eq!((json.status, json.stderr.as_str()), (Some(1), ""));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report["passed"], &report["backends"][0]["passed"]), (&false.into(), &false.into()));
}

#[test]
fn what_the_graph_does_not_have_is_reported_as_not_compared() {
    let context = context_with_artifact_for("tiny", Some(Task::Backbone), &[]);
    fs::copy(fixtures::checkpoint("tiny").join("golden.safetensors"), context.path("golden.safetensors"))
        .unwrap();
    let line = "jetmoe verify --model artifact --golden golden.safetensors --backend ort";
    let output = context.run(line);
    output.succeeded();
    assert_text!(output.transcript(), WIDTHS);
    let json: Value =
        serde_json::from_str(context.run(&format!("{line} --format json")).succeeded()).unwrap();
    let not_compared = json["backends"][0]["not_compared"].as_array().unwrap();
    for what in ["logits", "next.logits", "greedy continuation", "hidden_states.*"] {
        assert!(not_compared.contains(&what.into()), "{not_compared:?}");
    }
}

#[test]
fn a_checkpoint_is_exported_and_verified() {
    let context = new_context();
    context.fixture("tiny");
    let output = context.run("jetmoe verify --model tiny --backend tract");
    assert_eq!(output.status, Some(0));
    assert_text!(output.transcript(), WIDTHS);
}

#[test]
fn the_checkpoint_is_the_one_that_the_manifest_remembers_or_the_one_that_is_named() {
    let context = new_context();
    let checkpoint = context.copy("tiny", "checkpoint");
    export_checkpoint(&context.path("checkpoint"), &context.path("artifact"), None, &[]);
    let line = "jetmoe verify --model artifact --backend tract";
    context.run(line).noted(&remembered_checkpoint("checkpoint"));

    fs::rename(checkpoint, context.path("moved")).unwrap();
    let gone = context.run(line);
    assert!(gone.refused().contains("name it with --checkpoint"));
    context.run(&format!("{line} --checkpoint moved")).succeeded();

    context.fixture("odd");
    let other = context.run(&format!("{line} --checkpoint odd"));
    assert!(other.refused().contains("odd is not the checkpoint that the artifact was made from"));
    let nothing = context.run(&format!("{line} --checkpoint nothing"));
    nothing.refused();
    assert_transcript!(gone, other, nothing);
}

#[test]
fn a_golden_file_needs_no_checkpoint_but_for_the_reference() {
    let context = tiny();
    fs::remove_file(context.path("tiny")).unwrap();
    let line = "jetmoe verify --model artifact --golden golden.safetensors";
    context.run(&format!("{line} --backend ort,tract")).succeeded();
    let left_out = context.run(line);
    assert_eq!(left_out.status, Some(0));
    assert!(left_out.stderr.starts_with("the reference is left out: "), "{left_out:#?}");
    assert!(!left_out.stdout.contains("Candle"));
    context.run(&format!("{line} --backend reference")).refused();
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let context = tiny();
    fs::write(context.path("text"), "no golden file").unwrap();
    for (case, copy) in
        [("odd", "golden-of-odd.safetensors"), ("classifier", "golden-of-classifier.safetensors")]
    {
        fs::copy(fixtures::checkpoint(case).join("golden.safetensors"), context.path(copy)).unwrap();
    }
    let lines = [
        "jetmoe verify --model artifact --golden nothing",
        "jetmoe verify --model artifact --golden text",
        "jetmoe verify --model artifact --golden tiny/model.safetensors",
        "jetmoe verify --model artifact --golden golden-of-odd.safetensors",
        "jetmoe verify --model artifact --golden golden-of-classifier.safetensors",
        "jetmoe verify --model artifact --backend reference",
        "jetmoe verify --model artifact --backend tract,cuda",
    ];
    let outputs: Vec<CommandOutput> = lines.iter().map(|line| context.run(line)).collect();
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_golden_file_of_which_the_graph_has_nothing_proves_nothing() {
    let context = context_with_artifact_for("classifier", Some(Task::Backbone), &[]);
    let golden = fs::read(fixtures::checkpoint("classifier").join("golden.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let kept =
        ["input_ids", "attention_mask", "class_logits"].map(|name| (name, golden.tensor(name).unwrap()));
    safetensors::serialize_to_file(kept, None, &context.path("golden.safetensors")).unwrap();
    let output = context.run("jetmoe verify --model artifact --golden golden.safetensors --backend tract");
    assert!(output.refused().contains("nothing was compared"));
    assert_transcript!(output);
}

/// The manifest of an artifact that somebody else made decides neither what is downloaded nor what is opened on another machine.
#[test]
fn a_manifest_does_not_make_verify_download_or_open_what_is_elsewhere() {
    let context = context_with_artifact("tiny");
    let remember = |source: &str| {
        edit_json(&context.path("artifact/jetmoe.json"), |manifest| {
            manifest["checkpoint"]["source"] = source.into();
            manifest["checkpoint"]["revision"] = "0123456789abcdef0123456789abcdef01234567".into();
        });
        // the hub is asked unless this forbids it
        let line = context.command("jetmoe verify --model artifact --backend tract");
        line.environment("HF_HUB_OFFLINE", "0").environment("HF_ENDPOINT", "http://127.0.0.1:1").run()
    };
    let hub = remember("owner/name");
    let message = hub.refused();
    assert!(message.contains("owner/name on the hub, which is not in the cache: cannot read"), "{message}");
    assert!(message.contains("if you trust it, add --checkpoint owner/name\n"), "{message}");
    assert!(!message.contains("HF_HUB_OFFLINE"), "{message}");
    for elsewhere in ["//host/share/it's", "\\\\host\\share"] {
        let output = remember(elsewhere);
        let message = output.refused();
        assert!(message.contains("artifact/jetmoe.json names a checkpoint on another machine"), "{message}");
    }
    let quoted = remember("//host/share/it's");
    assert!(quoted.refused().contains("add --checkpoint '//host/share/it'\\''s'\n"), "{quoted:#?}");
    context.run("jetmoe verify --model artifact --checkpoint tiny --backend tract").succeeded();
}

#[cfg(unix)]
#[test]
fn the_manifest_of_another_user_opens_no_checkpoint() {
    let context = context_with_artifact("tiny");
    let manifest = context.path("artifact/jetmoe.json");
    if let Err(error) = std::os::unix::fs::chown(&manifest, Some(12_345), None) {
        jetmoe_testing::skip(&format!("files of another user need root: {error}"));
        return;
    }
    let line = "jetmoe verify --model artifact --backend tract";
    let output = context.run(line);
    let checkpoint = "[FOLDER]/tiny";
    let expected = format!(
        "error: artifact/jetmoe.json belongs to another user, so the checkpoint that it names is not opened: {checkpoint}\n"
    );
    assert!(output.refused().starts_with(&expected), "{output:#?}");
    assert!(output.refused().ends_with(&format!("add --checkpoint {checkpoint}\n")), "{output:#?}");
    context.run(&format!("{line} --checkpoint tiny")).succeeded();
}

/// Nothing waits for a pipe, wherever the manifest or the command line puts it.
#[cfg(unix)]
#[test]
fn a_checkpoint_of_pipes_is_refused() {
    let context = context_with_artifact("tiny");
    for name in ["config.json", "model.safetensors"] {
        let folder = context.copy("tiny", &format!("pipe in place of {name}"));
        fs::remove_file(folder.join(name)).unwrap();
        jetmoe_testing::files::named_pipe(&folder.join(name));
        edit_json(&context.path("artifact/jetmoe.json"), |manifest| {
            manifest["checkpoint"]["source"] = folder.to_str().unwrap().into();
        });
        let output = context.run("jetmoe verify --model artifact --backend tract");
        assert!(output.refused().contains(name), "{output:#?}");
    }
}
