//! Checkpoints that are exported to the user's cache, so that a runtime can run them.

use std::fs;

use jetmoe::artifact::Artifact;
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{TestContext, assert_transcript};

use crate::context::new_context;

const RUN: &str =
    "jetmoe run --model jetmoe-mini --backend tract --max-new-tokens 8 --prompt \"In the beginning\"";
const TEXT: &str = " of the reign of king Hezekiah sent\n";

/// The one artifact in the cache, relative to the context.
fn cached(context: &TestContext) -> String {
    let artifacts = "home/.cache/jetmoe/artifacts";
    let folders: Vec<_> =
        context.files(artifacts).into_iter().filter(|file| !file.contains(['/', '.'])).collect();
    let [folder] = folders.as_slice() else { panic!("{folders:?}") };
    format!("{artifacts}/{folder}")
}

#[test]
fn the_first_run_exports_and_the_next_ones_do_not() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    let first = context.run(RUN);
    assert_eq!((first.status, first.stdout.as_str()), (Some(0), TEXT), "{first:#?}");
    assert!(first.stderr.starts_with("exporting jetmoe-mini to "), "{first:#?}");
    assert_eq!(context.run(RUN).succeeded(), TEXT);
    context.run("jetmoe verify --model jetmoe-mini --backend tract").succeeded();
}

#[test]
fn a_damaged_or_outdated_artifact_of_the_cache_is_made_again() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    context.run(RUN);
    let folder = context.path(&cached(&context));
    let manifest = folder.join("jetmoe.json");
    for damage in [
        &(|| fs::remove_file(folder.join("onnx/model.onnx")).unwrap()) as &dyn Fn(),
        &|| fs::write(&manifest, "{").unwrap(),
        &|| edit_json(&manifest, |manifest| manifest["tool_version"] = "0.0.0".into()),
    ] {
        damage();
        let again = context.run(RUN);
        assert_eq!((again.status, again.stdout.as_str()), (Some(0), TEXT), "{again:#?}");
        assert!(again.stderr.starts_with("exporting "), "{again:#?}");
        Artifact::open(&folder).unwrap().check_digests().unwrap();
    }
}

#[test]
fn two_commands_at_once_export_one_after_the_other() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    let children = [context.command(RUN).start(), context.command(RUN).start()];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            TEXT,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    cached(&context);
}

#[test]
fn a_cache_that_cannot_be_written_to_is_named_with_a_way_around() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    fs::write(context.path("file"), "").unwrap();
    let output = context.command(RUN).environment("XDG_CACHE_HOME", context.path("file")).run();
    assert!(output.refused().contains("set XDG_CACHE_HOME to another folder"), "{output:#?}");
    assert_transcript!(output);
}
