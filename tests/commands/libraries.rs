//! libonnxruntime: another library in its place, or none.

use jetmoe_testing::{CommandLine, CommandOutput, TestContext, assert_transcript};
use std::fs;
use std::path::PathBuf;

use crate::context::context_with_artifact;

const RUN: &str = "jetmoe run --model artifact --max-new-tokens 8 --prompt \"In the beginning\"";

/// A system library that every process here has loaded, so that it is surely there.
fn another_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libm =
        maps.lines().filter_map(|line| Some(&line[line.find('/')?..])).find(|path| path.contains("/libm.so"));
    PathBuf::from(libm.unwrap())
}

/// A context with `library` and `text`, neither of them ONNX Runtime.
fn with_other_files() -> TestContext {
    let context = context_with_artifact("jetmoe-mini");
    fs::copy(another_library(), context.path("library")).unwrap();
    fs::write(context.path("text"), "no library").unwrap();
    context
}

/// A command that finds no libonnxruntime.
fn without_library<'b>(context: &'b TestContext, line: &str) -> CommandLine<'b> {
    fs::create_dir_all(context.path("nothing")).unwrap();
    let mut command = context.command(line).environment("XDG_CACHE_HOME", context.path("nothing"));
    for variable in ["PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        command = command.environment(variable, context.path("nothing"));
    }
    command.environment("ORT_DYLIB_PATH", "")
}

fn run_without_library(context: &TestContext, line: &str) -> CommandOutput {
    let devices = without_library(context, "jetmoe devices").run();
    assert!(
        devices.stdout.contains("no libonnxruntime found"),
        "there is a libonnxruntime in a system folder, so its absence cannot be tested:\n{}",
        devices.stdout
    );
    without_library(context, line).run()
}

#[test]
fn a_library_that_is_not_onnx_runtime_is_refused() {
    let context = with_other_files();
    let given =
        ["library", "text", "nothing"].map(|file| context.run(&format!("{RUN} --onnxruntime {file}")));
    for (output, file) in given.iter().zip(["library", "text", "nothing"]) {
        assert!(
            output.refused().contains(&format!("{file} cannot be used as ONNX Runtime: ")),
            "{output:#?}"
        );
    }
    let [library, text, nothing] = given;
    assert_transcript!(library, text, nothing);
}

#[test]
fn a_variable_that_names_another_library_is_named() {
    let context = with_other_files();
    let library = context.command(RUN).environment("ORT_DYLIB_PATH", context.path("library")).run();
    let text = context.command(RUN).environment("ORT_DYLIB_PATH", context.path("text")).run();
    for output in [&library, &text] {
        assert!(output.refused().contains("ORT_DYLIB_PATH names it; correct or unset it"), "{output:#?}");
    }
    assert_transcript!(library, text);
}

#[test]
fn without_libonnxruntime_tract_goes_on_serving_and_says_so() {
    let context = context_with_artifact("jetmoe-mini");
    let output = run_without_library(&context, RUN);
    assert_eq!(
        (output.status, output.stdout.as_str()),
        (Some(0), " of the reign of king Hezekiah sent\n"),
        "{output:#?}"
    );
    assert!(output.stderr.starts_with("warning: no libonnxruntime found; looked at:\n"), "{output:#?}");
    assert!(
        output.stderr.contains("pip install onnxruntime") && output.stderr.ends_with("going on with tract\n")
    );
    assert!(!output.stderr.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn without_libonnxruntime_its_backend_is_refused_with_advice() {
    let context = context_with_artifact("jetmoe-mini");
    let output = run_without_library(&context, &format!("{RUN} --backend ort"));
    let message = output.refused();
    assert!(message.starts_with("error: no libonnxruntime found; looked at:\n"), "{message}");
    assert!(message.contains("cargo xtask setup") && message.contains("ORT_DYLIB_PATH"), "{message}");
}

#[test]
fn without_libonnxruntime_a_verification_of_everything_is_refused_and_one_of_tract_made() {
    let context = context_with_artifact("tiny");
    run_without_library(&context, "jetmoe verify --model artifact").refused();
    run_without_library(&context, "jetmoe verify --model artifact --checkpoint tiny --backend tract")
        .succeeded();
}

#[test]
fn devices_say_that_a_named_library_would_be_taken_or_refused() {
    let context = with_other_files();
    let given = context.run("jetmoe devices --onnxruntime library");
    let variable =
        context.command("jetmoe devices").environment("ORT_DYLIB_PATH", context.path("text")).run();
    for (output, why) in [(&given, "it does not export OrtGetApiBase"), (&variable, "file too short")] {
        let ort = output.succeeded().lines().find(|line| line.trim_start().starts_with("ort ")).unwrap();
        assert!(
            ort.contains(" no ") && ort.contains("is to be taken but cannot be used") && ort.contains(why),
            "{ort}"
        );
    }
}
