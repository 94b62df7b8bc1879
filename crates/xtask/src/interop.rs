//! `interop`: checks every kind of exported graph with the Python packages `onnx` and `onnxruntime`, and an artifact with
//! `onnxruntime-genai`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::demo::build_commands;
use crate::python::INTEROP;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Folders of checkpoints with a `golden.safetensors`.
const FIXTURES: [&str; 2] = ["tests/fixtures/goldens", "tests/fixtures/models"];
/// Values of `--outputs`; empty without the option.
const OUTPUTS: [&str; 4] = ["", "hidden-states", "router-logits", "hidden-states,router-logits"];
/// The range of `jetmoe_graph::Opset`. Every case is exported with the default one, and these cases with all of them.
const OPSETS: [u32; 6] = [18, 19, 20, 21, 22, 23];
const OPSET_CASES: [&str; 2] = ["tiny", "classifier"];

/// How the weights of an export are stored.
#[derive(Debug, PartialEq)]
struct Storage {
    /// Precision, options that change it, and the profile if it is not portable. `storage.py` parses it.
    folder: &'static str,
    arguments: &'static str,
}

const fn storage(folder: &'static str, arguments: &'static str) -> Storage {
    Storage { folder, arguments }
}

const FLOAT32: Storage = storage("f32", "");
/// The other ways to store weights, with which these cases are exported with all outputs. The vocabulary of `tiny` is an
/// odd number, and the widths of `odd` are not multiples of the group size.
const STORAGES: [Storage; 12] = [
    storage("f16", "--precision f16"),
    storage("bf16", "--precision bf16"),
    storage("int8", "--precision int8"),
    storage("int8+onnxruntime", "--precision int8 --profile onnxruntime"),
    storage("q4", "--precision q4"),
    storage("q4+onnxruntime", "--precision q4 --profile onnxruntime"),
    storage("q4+zero-points", "--precision q4 --zero-points"),
    storage("q4+zero-points+onnxruntime", "--precision q4 --zero-points --profile onnxruntime"),
    storage("q4+int4-lm_head", "--precision q4 --override int4:lm_head"),
    storage("q4+int4-lm_head+onnxruntime", "--precision q4 --override int4:lm_head --profile onnxruntime"),
    storage("q4f16", "--precision q4f16"),
    storage("q4f16+onnxruntime", "--precision q4f16 --profile onnxruntime"),
];
const STORAGE_CASES: [&str; 2] = ["tiny", "odd"];

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    INTEROP.prepare(workspace, steps)?;
    build_commands(workspace, steps)?;

    let folder = workspace.target.join("interop");
    let cases = cases(&workspace.root)?;
    let exports: Vec<Export<'_>> = cases.iter().flat_map(Export::all_of).collect();
    steps.run_step(
        "export every case",
        &format!("{} artifacts in {}", exports.len(), folder.display()),
        || {
            clear(&workspace.root.join(&folder))?;
            write_all(&exports, workspace, &folder)
        },
    )?;

    let python = INTEROP.program("python");
    let self_test =
        CommandLine::new(&python).args(["-m", "unittest", "discover", "--start-directory", "tests/interop"]);
    steps.run("test the interop checks", &workspace.root, &self_test)?;
    let check = CommandLine::new(&python)
        .args(["tests/interop/check.py", "--expect", &exports.len().to_string()])
        .arg(&folder)
        .args(FIXTURES);
    steps.run("interop", &workspace.root, &check)?;
    let genai = CommandLine::new(&python)
        .arg("tests/interop/genai.py")
        .arg(workspace.binary("jetmoe"))
        .arg(folder.join("jetmoe-mini/causal-lm/plain/default/f32"))
        .arg("tests/fixtures/models/jetmoe-mini/expected.json")
        .arg("tests/fixtures/odd-checkpoints/combinations.json");
    steps.run("interop with onnxruntime-genai", &workspace.root, &genai)
}

/// Writes the exports, as many at a time as there are cores, because much of an export waits for the disk.
fn write_all(exports: &[Export<'_>], workspace: &Workspace, folder: &Path) -> Result<()> {
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let write = |first| {
            exports.iter().skip(first).step_by(threads).try_for_each(|export| export.write(workspace, folder))
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || write(first))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

/// Removes earlier artifacts, which would be checked too.
fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// A checkpoint with golden values.
struct Case {
    name: String,
    /// Relative to the root.
    checkpoint: PathBuf,
    tasks: [&'static str; 2],
}

/// All cases, sorted by name.
fn cases(root: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for fixtures in FIXTURES {
        let entries = fs::read_dir(root.join(fixtures)).with_context(|| format!("cannot read {fixtures}"))?;
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let checkpoint = Path::new(fixtures).join(&name);
            if root.join(&checkpoint).join("golden.safetensors").is_file() {
                let config = root.join(&checkpoint).join("config.json");
                let config = fs::read_to_string(&config)
                    .with_context(|| format!("cannot read {}", config.display()))?;
                cases.push(Case { name, checkpoint, tasks: tasks(&config) });
            }
        }
    }
    cases.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(cases)
}

/// Tasks that a checkpoint can be exported for, by its `config.json`.
fn tasks(config: &str) -> [&'static str; 2] {
    // only this architecture has the word in its name, and a JSON parser would be xtask's largest dependency
    if config.contains("ForSequenceClassification") {
        ["sequence-classification", "backbone"]
    } else {
        ["causal-lm", "backbone"]
    }
}

/// One artifact to make.
#[derive(Debug, PartialEq)]
struct Export<'a> {
    case: &'a str,
    checkpoint: &'a Path,
    task: &'static str,
    outputs: &'static str,
    /// `None` for the default.
    opset: Option<u32>,
    storage: &'static Storage,
}

impl<'a> Export<'a> {
    fn all_of(case: &'a Case) -> Vec<Export<'a>> {
        let mut opsets = vec![None];
        if OPSET_CASES.contains(&case.name.as_str()) {
            opsets.extend(OPSETS.map(Some));
        }
        let mut exports = Vec::new();
        for task in case.tasks {
            for outputs in OUTPUTS {
                exports.extend(opsets.iter().map(|&opset| Export {
                    case: &case.name,
                    checkpoint: &case.checkpoint,
                    task,
                    outputs,
                    opset,
                    storage: &FLOAT32,
                }));
            }
        }
        if STORAGE_CASES.contains(&case.name.as_str()) {
            exports.extend(STORAGES.iter().map(|storage| Export {
                case: &case.name,
                checkpoint: &case.checkpoint,
                task: case.tasks[0],
                outputs: OUTPUTS[3],
                opset: None,
                storage,
            }));
        }
        exports
    }

    /// The folder of the artifact, from which `check.py` derives its expectations.
    fn folder(&self) -> PathBuf {
        let outputs =
            if self.outputs.is_empty() { "plain".to_owned() } else { self.outputs.replace(',', "+") };
        let opset = self.opset.map_or("default".to_owned(), |opset| opset.to_string());
        [self.case, self.task, &outputs, &opset, self.storage.folder].iter().collect()
    }

    fn write(&self, workspace: &Workspace, folder: &Path) -> Result<()> {
        let mut command = CommandLine::new(workspace.binary("jetmoe-export"))
            .arg(self.checkpoint)
            .arg("--output")
            .arg(folder.join(self.folder()))
            .args(["--task", self.task])
            .args(self.storage.arguments.split_whitespace());
        if !self.outputs.is_empty() {
            command = command.args(["--outputs", self.outputs]);
        }
        if let Some(opset) = self.opset {
            command = command.args(["--opset", &opset.to_string()]);
        }
        let output = command.output(&workspace.root)?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("{}\nrun it alone with\n    {command}\n{message}", output.status);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
