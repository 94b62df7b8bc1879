//! A program that embeds this crate sends no telemetry of ONNX Runtime, unless its user wants it. Every case runs in a
//! process of its own: this test binary once more, with `in_a_process_of_its_own`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]
#![cfg(all(feature = "ort", target_os = "linux"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use jetmoe_rt::{LoadOptions, Model, OnnxRuntimeLibrary, TokenBatch, backend};

const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Opens the library and prints the variable; then loads and runs a model, unless the user enabled telemetry: a test sends none.
#[test]
#[ignore = "the other tests of this file run it"]
fn in_a_process_of_its_own() {
    OnnxRuntimeLibrary::find(None).unwrap();
    let value = std::env::var(VARIABLE);
    println!("the variable is {value:?}");
    if value.as_deref() != Ok("0") {
        let options = LoadOptions::default().with_trust_graph(true).with_backend(backend("ort").unwrap());
        let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/toy");
        let model = Model::load(toy, &options).unwrap();
        model.session().unwrap().step(&TokenBatch::next_tokens(&[3])).unwrap();
        println!("{} ran", model.backend());
    }
}

/// What a process prints, with an empty home and nothing in its environment by which ONNX Runtime recognises a CI machine.
fn run(home: &Path, variables: &[(&str, &str)]) -> String {
    let library: PathBuf = OnnxRuntimeLibrary::find(None).unwrap().path().to_owned();
    let mut process = Command::new(std::env::current_exe().unwrap());
    process
        .args(["in_a_process_of_its_own", "--exact", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home)
        .env("ORT_DYLIB_PATH", library)
        .envs(variables.iter().copied())
        .current_dir(home);
    let output = process.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_is_written_below_the_home_folder() {
    let home = tempfile::tempdir().unwrap();
    for variables in [&[][..], &[(VARIABLE, "")]] {
        let printed = run(home.path(), variables);
        assert_eq!(jetmoe_testing::files::list(home.path()), Vec::<String>::new());
        assert!(printed.contains("the variable is Ok(\"1\")") && printed.contains(" ran"), "{printed}");
    }
}

#[test]
fn a_user_who_sets_the_variable_is_obeyed() {
    let home = tempfile::tempdir().unwrap();
    let printed = run(home.path(), &[(VARIABLE, "0")]);
    assert!(printed.contains("the variable is Ok(\"0\")"), "{printed}");
}
