//! Shared by the targets: the models that are mutated, and a folder to write mutated files into.

use std::fs;
use std::path::PathBuf;

use jetmoe_fuzz::{Choices, copy_folder};

/// Folder of the models that `jetmoe-fuzz bases` writes, and of what the targets write.
const FOLDER_VARIABLE: &str = "JETMOE_FUZZ_FOLDER";

fn folder() -> PathBuf {
    let named = std::env::var_os(FOLDER_VARIABLE);
    named.map(PathBuf::from).unwrap_or_else(|| {
        panic!("{FOLDER_VARIABLE} is not set; `cargo xtask fuzz --targets` makes the models and sets it")
    })
}

/// The folder of a model, see the table of models in `crates/jetmoe-fuzz/src/driver/bases.rs`.
pub fn base(name: &str) -> PathBuf {
    folder().join("bases").join(name)
}

/// A file of a model.
pub fn base_file(name: &str, file: &str) -> Vec<u8> {
    let path = base(name).join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// A copy of a model in a folder of this process.
pub fn copy_of(name: &str) -> PathBuf {
    let copy = folder().join("scratch").join(format!("{}-{name}", std::process::id()));
    copy_folder(&base(name), &copy).unwrap();
    copy
}

/// Lets a panic of a library unwind, as the project may turn it into an error, instead of ending the process as libFuzzer's hook
/// does. One that nothing catches ends the process all the same, and so does one in code of this repository.
pub fn abort_on_own_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let is_own = panic.location().is_some_and(|place| place.file().contains("crates/jetmoe"));
        eprintln!("{panic}");
        if is_own {
            std::process::abort();
        }
    }));
}

/// A mutation of a file by choices.
pub type Mutation = fn(&[u8], &mut Choices<'_>) -> Vec<u8>;

/// The content of a file that an input stands for: the input itself without its first byte, if that is even, or `file`, mutated
/// by the choices in the rest of the input.
pub fn content(input: &[u8], file: &[u8], mutate: Mutation) -> Vec<u8> {
    match input {
        [] => Vec::new(),
        [first, rest @ ..] if first % 2 == 0 => rest.to_vec(),
        [_, rest @ ..] => {
            let mut choices = Choices::of_bytes(rest);
            let mut mutated = file.to_vec();
            // an input makes as many mutations as it has choices for
            for _ in 0..8 {
                if !choices.is_exhausted() {
                    mutated = mutate(&mutated, &mut choices);
                }
            }
            mutated
        }
    }
}
