//! Which libonnxruntime a process takes, by its environment. Every case runs in a process of its own: this test binary
//! once more, with `in_a_process_of_its_own`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]
#![cfg(all(feature = "ort", feature = "tract", target_os = "linux"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use jetmoe_rt::{BackendError, Error, LibraryOrigin, LoadOptions, Model, OnnxRuntimeLibrary, backend};

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/toy")
}

/// An error with its causes, the advice in its second line last.
fn chain(error: &dyn std::error::Error) -> String {
    let causes: Vec<String> =
        std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
    let (first, advice) = causes[0].split_once('\n').unwrap_or((&causes[0], ""));
    format!("{}\n{advice}", [&[first.to_owned()], &causes[1..]].concat().join(": "))
}

/// Says what this process's environment leads to.
#[test]
#[ignore = "the other tests of this file run it"]
fn in_a_process_of_its_own() {
    match OnnxRuntimeLibrary::find(None) {
        Ok(library) => println!("found {} ({})", library.path().display(), library.origin()),
        Err(error) => println!("error {}", chain(&error)),
    }
    match Model::load(toy(), &LoadOptions::default().with_trust_graph(true)) {
        Ok(model) => println!("model {}", model.backend()),
        Err(error) => println!("refused {}", chain(&error)),
    }
}

/// What a process says in an environment without any of the variables that a library is found by, but for `variables`.
fn say(home: &Path, variables: &[(&str, &Path)]) -> String {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["in_a_process_of_its_own", "--exact", "--ignored", "--nocapture"]);
    for unset in ["ORT_DYLIB_PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        process.env_remove(unset);
    }
    process.env("XDG_CACHE_HOME", home).env("PATH", home).envs(variables.iter().copied());
    let output = process.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn library_of_this_machine() -> PathBuf {
    OnnxRuntimeLibrary::find(None).unwrap().path().to_owned()
}

#[test]
fn a_variable_that_names_no_library_is_an_error_and_not_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("text.so");
    std::fs::write(&text, "no library, and long enough to hold the header of one, which has 64 bytes")
        .unwrap();
    let cases = [
        (Path::new("/nowhere/libonnxruntime.so"), "no such file"),
        (home.path(), "it is a folder"),
        (&text, "invalid ELF header"),
        (Path::new("/lib/x86_64-linux-gnu/libm.so.6"), "OrtGetApiBase"),
    ];
    for (path, why) in cases.into_iter().filter(|(path, _)| !path.starts_with("/lib") || path.exists()) {
        let said = say(home.path(), &[("ORT_DYLIB_PATH", path)]);
        let refusal = format!("{} cannot be used as ONNX Runtime: ", path.display());
        assert!(said.contains(&format!("error {refusal}")), "{said}");
        assert!(said.contains(&format!("refused {refusal}")), "{said}");
        assert!(said.contains(why) && said.contains("ORT_DYLIB_PATH names it"), "{said}");
    }
}

#[test]
fn a_variable_that_names_a_library_is_followed() {
    let home = tempfile::tempdir().unwrap();
    let library = library_of_this_machine();
    let said = say(home.path(), &[("ORT_DYLIB_PATH", &library)]);
    assert!(said.contains(&format!("found {} (ORT_DYLIB_PATH)", library.display())), "{said}");
    assert!(said.contains("model ort 1."), "{said}");
}

#[test]
fn a_library_in_the_cache_that_cannot_be_used_is_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let broken = home.path().join("jetmoe/onnxruntime/99.0.0");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("libonnxruntime.so"), "no library").unwrap();
    let system = home.path().join("system");
    std::fs::create_dir(&system).unwrap();
    let link = system.join("libonnxruntime.so");
    std::os::unix::fs::symlink(library_of_this_machine(), &link).unwrap();
    let said = say(home.path(), &[("LD_LIBRARY_PATH", &system)]);
    assert!(said.contains(&format!("found {} (system)", link.display())), "{said}");
}

#[test]
fn without_a_library_every_place_is_named_and_tract_serves() {
    // a machine may have a library in a folder of the system, which no variable can hide
    let in_system = OnnxRuntimeLibrary::candidates(None).into_iter().any(|candidate| {
        candidate.origin == LibraryOrigin::System
            && candidate.path.is_file()
            && !std::env::var_os("LD_LIBRARY_PATH").is_some_and(|folders| {
                std::env::split_paths(&folders).any(|folder| candidate.path.starts_with(folder))
            })
    });
    let home = tempfile::tempdir().unwrap();
    let said = say(home.path(), &[("VIRTUAL_ENV", Path::new("/nowhere"))]);
    if in_system {
        assert!(said.contains("(system)"), "{said}");
        return;
    }
    let cache = home.path().join("jetmoe/onnxruntime");
    let places = [
        format!("{} (project cache): no such folder", cache.display()),
        "/usr/lib (system): ".to_owned(),
        "/nowhere/lib/python3/site-packages/onnxruntime/capi (Python environment): no such folder".to_owned(),
        "python3 (Python environment): cannot be asked".to_owned(),
    ];
    for place in places {
        assert!(said.contains(&format!("\n  - {place}")), "{place} is not in {said}");
    }
    assert!(said.contains("pip install onnxruntime") && said.contains("model tract "), "{said}");
}

#[test]
fn a_library_that_the_caller_names_is_taken_or_refused() {
    let missing = Path::new("/nowhere/libonnxruntime.so");
    for backend in [None, Some(backend("ort").unwrap())] {
        let options = LoadOptions::default()
            .with_trust_graph(true)
            .with_backend(backend)
            .with_onnxruntime_library(missing);
        match Model::load(toy(), &options).unwrap_err() {
            Error::Backend(BackendError::Library { path, .. }) => assert_eq!(path, missing),
            other => panic!("{other:?}"),
        }
    }
}
