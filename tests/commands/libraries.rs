//! libonnxruntime: another library in its place, or none.

use std::fs;
use std::path::PathBuf;

use crate::workbench::{CommandLine, Ended, Workbench, assert_transcript};

const RUN: &str = "jetmoe run --model artifact --max-new-tokens 8 --prompt \"In the beginning\"";

/// A system library that every process here has loaded, so that it is surely there.
fn another_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libm =
        maps.lines().filter_map(|line| Some(&line[line.find('/')?..])).find(|path| path.contains("/libm.so"));
    PathBuf::from(libm.unwrap())
}

/// A workbench with `library` and `text`, neither of them ONNX Runtime.
fn with_other_files() -> Workbench {
    let bench = Workbench::with_artifact("jetmoe-mini");
    fs::copy(another_library(), bench.path("library")).unwrap();
    fs::write(bench.path("text"), "no library").unwrap();
    bench
}

/// A command that finds no libonnxruntime.
fn without_library<'b>(bench: &'b Workbench, line: &str) -> CommandLine<'b> {
    fs::create_dir_all(bench.path("nothing")).unwrap();
    let mut command = bench.command(line).environment("XDG_CACHE_HOME", bench.path("nothing"));
    for variable in ["PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        command = command.environment(variable, bench.path("nothing"));
    }
    command.environment("ORT_DYLIB_PATH", "")
}

fn ended_without_library(bench: &Workbench, line: &str) -> Ended {
    let devices = without_library(bench, "jetmoe devices").run();
    assert!(
        devices.stdout.contains("no libonnxruntime found"),
        "a libonnxruntime lies in a folder of the system, so it cannot be tested what happens without one:\n{}",
        devices.stdout
    );
    without_library(bench, line).run()
}

#[test]
fn a_library_that_is_not_onnx_runtime_is_refused() {
    let bench = with_other_files();
    let given = ["library", "text", "nothing"].map(|file| bench.run(&format!("{RUN} --onnxruntime {file}")));
    for (ended, file) in given.iter().zip(["library", "text", "nothing"]) {
        assert!(ended.refused().contains(&format!("{file} cannot be used as ONNX Runtime: ")), "{ended:#?}");
    }
    let [library, text, nothing] = given;
    assert_transcript!(library, text, nothing);
}

#[test]
fn a_variable_that_names_another_library_is_named() {
    let bench = with_other_files();
    let library = bench.command(RUN).environment("ORT_DYLIB_PATH", bench.path("library")).run();
    let text = bench.command(RUN).environment("ORT_DYLIB_PATH", bench.path("text")).run();
    for ended in [&library, &text] {
        assert!(ended.refused().contains("ORT_DYLIB_PATH names it; correct or unset it"), "{ended:#?}");
    }
    assert_transcript!(library, text);
}

#[test]
fn without_libonnxruntime_tract_goes_on_serving_and_says_so() {
    let bench = Workbench::with_artifact("jetmoe-mini");
    let ended = ended_without_library(&bench, RUN);
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (Some(0), " of the reign of king Hezekiah sent\n"),
        "{ended:#?}"
    );
    assert!(ended.stderr.starts_with("warning: no libonnxruntime found; looked at:\n"), "{ended:#?}");
    assert!(
        ended.stderr.contains("pip install onnxruntime") && ended.stderr.ends_with("going on with tract\n")
    );
    assert!(!ended.stderr.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn without_libonnxruntime_its_backend_is_refused_with_advice() {
    let bench = Workbench::with_artifact("jetmoe-mini");
    let ended = ended_without_library(&bench, &format!("{RUN} --backend ort"));
    let message = ended.refused();
    assert!(message.starts_with("error: no libonnxruntime found; looked at:\n"), "{message}");
    assert!(message.contains("cargo xtask setup") && message.contains("ORT_DYLIB_PATH"), "{message}");
}

#[test]
fn without_libonnxruntime_a_verification_of_everything_is_refused_and_one_of_tract_made() {
    let bench = Workbench::with_artifact("tiny");
    ended_without_library(&bench, "jetmoe verify --model artifact").refused();
    ended_without_library(&bench, "jetmoe verify --model artifact --backend tract").succeeded();
}

#[test]
fn devices_say_that_a_named_library_would_be_taken_or_refused() {
    let bench = with_other_files();
    let given = bench.run("jetmoe devices --onnxruntime library");
    let variable = bench.command("jetmoe devices").environment("ORT_DYLIB_PATH", bench.path("text")).run();
    for (ended, why) in [(&given, "it does not export OrtGetApiBase"), (&variable, "file too short")] {
        let ort = ended.succeeded().lines().find(|line| line.trim_start().starts_with("ort ")).unwrap();
        assert!(
            ort.contains(" no ") && ort.contains("is to be taken but cannot be used") && ort.contains(why),
            "{ort}"
        );
    }
}
