//! Mutated copies of a model.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jetmoe_artifact::names as artifact_names;
use jetmoe_checkpoint::{Digest, names};
use jetmoe_fuzz::{
    Choices, mutate_bytes, mutate_floats, mutate_graph, mutate_json_text, mutate_safetensors,
    mutate_template, mutate_tokenizer,
};
use jetmoe_onnx::{Model, check_graph};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use super::bases::{Base, BaseKind, Bases};
use super::plan::{Mutator, Plan};

/// A mutated copy of a model, in a folder of its own.
pub(crate) struct Input<'c> {
    pub(crate) folder: &'c Path,
    pub(crate) bases: &'c Bases,
    pub(crate) plan: Plan,
}

impl Input<'_> {
    /// Mutates the copy.
    pub(crate) fn mutate(&self, choices: &mut Choices<'_>) -> Result<()> {
        let Plan { base, mutator, .. } = self.plan;
        match mutator {
            Mutator::Manifest | Mutator::Output => {}
            Mutator::Config => {
                let settings = [names::CONFIG, names::CONFIG, names::CONFIG, names::GENERATION_CONFIG];
                self.rewrite(&settings, mutate_json_text, choices)?;
            }
            Mutator::Tokenizer => {
                if choices.once_in(4) {
                    let settings = [names::TOKENIZER_CONFIG, names::SPECIAL_TOKENS_MAP, names::ADDED_TOKENS];
                    self.rewrite(&settings, mutate_json_text, choices)?;
                } else {
                    self.rewrite(&[names::TOKENIZER], mutate_tokenizer, choices)?;
                }
            }
            Mutator::Template => self.rewrite(&[names::CHAT_TEMPLATE], mutate_template, choices)?,
            Mutator::Graph => self.mutate_graph(choices)?,
            Mutator::Safetensors => {
                if base.name == "sharded" && choices.once_in(2) {
                    self.rewrite(&[names::WEIGHTS_INDEX], mutate_json_text, choices)?;
                } else {
                    let path = self
                        .pick_file(choices, |path| path.extension().is_some_and(|it| it == "safetensors"))?;
                    self.rewrite_path(&path, mutate_safetensors, choices)?;
                }
            }
            Mutator::Weights => {
                let path = self.pick_file(choices, |path| path.to_string_lossy().ends_with(DATA))?;
                self.rewrite_path(&path, mutate_weights, choices)?;
            }
            Mutator::Files => replace_file(&self.pick_file(choices, |_| true)?, choices)?,
        }
        if base.kind != BaseKind::Checkpoint && !choices.once_in(8) {
            repair_manifest(self.folder)?;
        }
        if mutator == Mutator::Manifest {
            self.rewrite(&[artifact_names::MANIFEST], mutate_json_text, choices)?;
        }
        Ok(())
    }

    /// Mutates one of these files; one that does not exist is an empty object before.
    fn rewrite(&self, files: &[&str], mutate: Mutation, choices: &mut Choices<'_>) -> Result<()> {
        let name = choices.pick(files).copied().unwrap_or_default();
        self.rewrite_path(&self.folder.join(name), mutate, choices)
    }

    fn rewrite_path(&self, path: &Path, mutate: Mutation, choices: &mut Choices<'_>) -> Result<()> {
        let content = if path.exists() { fs::read(path)? } else { b"{}".to_vec() };
        fs::write(path, mutate(&content, choices)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A regular file of the copy.
    fn pick_file(&self, choices: &mut Choices<'_>, suits: impl Fn(&Path) -> bool) -> Result<PathBuf> {
        let mut files: Vec<PathBuf> = files(self.folder)?.into_iter().filter(|path| suits(path)).collect();
        files.sort();
        choices.pick(&files).cloned().context("the model has no such file")
    }

    /// Mutates the graph; mostly only so that the check before a backend loads it does not refuse it.
    fn mutate_graph(&self, choices: &mut Choices<'_>) -> Result<()> {
        const ATTEMPTS: usize = 40;
        let (manifest, config) = self.bases.artifact(self.plan.base)?;
        let record = manifest.graphs.first().context("the artifact has no graph")?;
        let path = self.folder.join(&record.graph.path);
        if choices.once_in(10) {
            return self.rewrite_path(&path, mutate_copy, choices);
        }
        let is_to_pass = !choices.once_in(4);
        let mut model = jetmoe_onnx::read(&path)?;
        for _ in 0..=choices.below(3) {
            for _ in 0..ATTEMPTS {
                let mut candidate: Model = model.clone();
                mutate_graph(&mut candidate, choices);
                let bytes = candidate.to_bytes();
                let passes = || check_graph(&path, &bytes, &config, record).is_ok();
                if !is_to_pass || candidate != model && passes() {
                    model = candidate;
                    break;
                }
            }
        }
        Ok(fs::write(&path, model.to_bytes())?)
    }
}

/// Makes another content of a file.
type Mutation = fn(&[u8], &mut Choices<'_>) -> Vec<u8>;

/// How the name of a data file ends.
const DATA: &str = ".onnx_data";

fn mutate_copy(content: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut content = content.to_vec();
    for _ in 0..=choices.below(3) {
        mutate_bytes(&mut content, choices);
    }
    content
}

fn mutate_weights(content: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut content = content.to_vec();
    for _ in 0..=choices.below(6) {
        if choices.once_in(3) {
            mutate_bytes(&mut content, choices);
        } else {
            mutate_floats(&mut content, choices);
        }
    }
    content
}

/// Puts something else in the place of a file.
pub(crate) fn replace_file(path: &Path, choices: &mut Choices<'_>) -> Result<()> {
    const TARGETS: [&str; 8] = [
        "../outside/kept.txt",
        "../../outside/kept.txt",
        "../outside",
        "missing",
        ".",
        "/dev/zero",
        "/dev/full",
        "/dev/null",
    ];
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let is_weights =
        path.extension().is_some_and(|it| it == "safetensors") || path.to_string_lossy().ends_with(DATA);
    match choices.below(10) {
        0 => fs::remove_file(path)?,
        1 => fs::write(path, "")?,
        2 => fs::File::options().write(true).open(path)?.set_len(length / 2)?,
        // most of it takes no space; weights of any size may be read as a whole
        3 => {
            let bits = if is_weights { 29 } else { 34 };
            fs::File::options().write(true).open(path)?.set_len(1 << choices.below(bits))?;
        }
        4 => {
            fs::remove_file(path)?;
            fs::create_dir(path)?;
        }
        5 => {
            fs::remove_file(path)?;
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        }
        6 => {
            let name = path.file_name().context("a file has a name")?;
            fs::remove_file(path)?;
            symlink(name, path)?;
        }
        7 => {
            let folder = path.parent().context("a file is in a folder")?;
            let mut others = files(folder)?;
            others.sort();
            let other = choices.pick(&others).cloned().unwrap_or_default();
            fs::remove_file(path)?;
            symlink(other.file_name().unwrap_or_default(), path)?;
        }
        _ => {
            fs::remove_file(path)?;
            symlink(choices.pick(&TARGETS).copied().unwrap_or_default(), path)?;
        }
    }
    Ok(())
}

/// Every regular file below a folder.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_file() {
                files.push(entry.path());
            } else if kind.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// Gives the manifest sizes and digests of the files that are there, so that mutated files are read.
fn repair_manifest(folder: &Path) -> Result<()> {
    let path = folder.join(artifact_names::MANIFEST);
    // it may have been replaced
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(());
    }
    let Ok(mut manifest) = serde_json::from_slice::<Value>(&fs::read(&path)?) else { return Ok(()) };
    repair(&mut manifest, folder)?;
    Ok(fs::write(&path, serde_json::to_string_pretty(&manifest)?)?)
}

fn repair(value: &mut Value, folder: &Path) -> Result<()> {
    // a digest of a longer file takes too long
    const MAX_DIGESTED: u64 = 16 << 20;
    match value {
        Value::Array(values) => values.iter_mut().try_for_each(|value| repair(value, folder)),
        Value::Object(object) => {
            let file = object.get("path").and_then(Value::as_str).map(|file| folder.join(file));
            let metadata = file.as_ref().and_then(|file| fs::metadata(file).ok());
            if let (Some(file), Some(metadata)) = (file, metadata.filter(fs::Metadata::is_file)) {
                object.insert("size".to_owned(), metadata.len().into());
                if metadata.len() <= MAX_DIGESTED {
                    object.insert("sha256".to_owned(), Digest::of_file(&file)?.to_string().into());
                }
            }
            object.values_mut().try_for_each(|value| repair(value, folder))
        }
        _ => Ok(()),
    }
}

/// Whether a model is an artifact.
pub(crate) fn is_artifact(base: &Base) -> bool {
    base.kind != BaseKind::Checkpoint
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repaired_manifest_has_the_digests_of_the_files_that_exist() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("here"), "content").unwrap();
        let file = |path: &str| json!({ "path": path, "size": 1, "sha256": "0" });
        let mut manifest = json!({ "files": [file("here"), file("missing"), 5], "path": "here" });
        repair(&mut manifest, folder.path()).unwrap();
        let digest = Digest::of_bytes(b"content").to_string();
        assert_eq!(manifest["files"][0], json!({ "path": "here", "size": 7, "sha256": digest }));
        assert_eq!(manifest["files"][1], file("missing"));
    }

    #[test]
    fn a_file_is_replaced_by_something_else() {
        for seed in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            fs::write(&path, "content").unwrap();
            replace_file(&path, &mut Choices::of_seed(seed)).unwrap();
            let found = path.symlink_metadata().ok();
            let is_same = found.is_some_and(|found| found.is_file() && found.len() == 7);
            assert!(!is_same, "seed {seed}");
        }
    }
}
