//! `interop`: every graph that the exporter can build, checked with the Python packages `onnx` and `onnxruntime`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::demo::build_commands;
use crate::python::INTEROP;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Folders of checkpoints with a `golden.safetensors`.
const FIXTURES: [&str; 2] = ["tests/fixtures/goldens", "tests/fixtures/models"];
/// Values of `--outputs`; the empty one leaves the option out.
const OUTPUTS: [&str; 4] = ["", "hidden-states", "router-logits", "hidden-states,router-logits"];
/// The range of `jetmoe_graph::Opset`. Every case is exported with the default; these cases with every other one.
const OPSETS: [u32; 6] = [18, 19, 20, 21, 22, 23];
const OPSET_CASES: [&str; 2] = ["tiny", "classifier"];

/// How the weights of an export are stored.
#[derive(Debug, PartialEq)]
struct Storage {
    /// Precision, options that change it, and the profile where it is not the portable one. `storage.py` reads it.
    folder: &'static str,
    arguments: &'static [&'static str],
}

const FLOAT32: Storage = Storage { folder: "f32", arguments: &[] };
/// The other ways to store weights, for which these cases are exported with all outputs. The vocabulary of `tiny` is odd,
/// and the widths of `odd` are no multiples of a group.
const STORAGES: [Storage; 12] = [
    Storage { folder: "f16", arguments: &["--precision", "f16"] },
    Storage { folder: "bf16", arguments: &["--precision", "bf16"] },
    Storage { folder: "int8", arguments: &["--precision", "int8"] },
    Storage { folder: "int8+onnxruntime", arguments: &["--precision", "int8", "--profile", "onnxruntime"] },
    Storage { folder: "q4", arguments: &["--precision", "q4"] },
    Storage { folder: "q4+onnxruntime", arguments: &["--precision", "q4", "--profile", "onnxruntime"] },
    Storage { folder: "q4+zero-points", arguments: &["--precision", "q4", "--zero-points"] },
    Storage {
        folder: "q4+zero-points+onnxruntime",
        arguments: &["--precision", "q4", "--zero-points", "--profile", "onnxruntime"],
    },
    Storage { folder: "q4+int4-lm_head", arguments: &["--precision", "q4", "--override", "int4:lm_head"] },
    Storage {
        folder: "q4+int4-lm_head+onnxruntime",
        arguments: &["--precision", "q4", "--override", "int4:lm_head", "--profile", "onnxruntime"],
    },
    Storage { folder: "q4f16", arguments: &["--precision", "q4f16"] },
    Storage { folder: "q4f16+onnxruntime", arguments: &["--precision", "q4f16", "--profile", "onnxruntime"] },
];
const STORAGE_CASES: [&str; 2] = ["tiny", "odd"];

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    INTEROP.prepare(workspace, steps)?;
    build_commands(workspace, steps)?;

    let folder = workspace.target.join("interop");
    let cases = cases(&workspace.root)?;
    let exports: Vec<Export<'_>> = cases.iter().flat_map(Export::all_of).collect();
    steps.perform(
        "export every case",
        &format!("{} artifacts in {}", exports.len(), folder.display()),
        || {
            clear(&workspace.root.join(&folder))?;
            exports.iter().try_for_each(|export| export.write(workspace, &folder))
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
    steps.run("interop", &workspace.root, &check)
}

/// Old artifacts would be checked too, whoever made them.
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

/// Every case, sorted by name.
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

/// What a checkpoint can be exported for, by its `config.json`.
fn tasks(config: &str) -> [&'static str; 2] {
    // the one architecture whose name holds this word; a JSON parser would be xtask's largest dependency
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
    /// `None` is the exporter's default.
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

    /// `check.py` reads what it may expect from this path.
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
            .args(self.storage.arguments);
        if !self.outputs.is_empty() {
            command = command.args(["--outputs", self.outputs]);
        }
        if let Some(opset) = self.opset {
            command = command.args(["--opset", &opset.to_string()]);
        }
        let output = command.output(&workspace.root)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}\nrun it alone with\n    {command}\n{said}", output.status);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::{Path, PathBuf};

    use super::{Case, Export, FLOAT32, OPSETS, OUTPUTS, STORAGE_CASES, STORAGES, cases, tasks};

    fn case(name: &str) -> Case {
        Case { name: name.to_owned(), checkpoint: PathBuf::from(name), tasks: tasks("") }
    }

    #[test]
    fn every_fixture_is_a_case() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let names: Vec<_> = cases(&root).unwrap().into_iter().map(|case| case.name).collect();
        for name in ["bf16-sharded", "classifier", "jetmoe-mini", "jetmoe-mini-classifier", "legacy", "tiny"]
        {
            assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn a_classifier_is_no_language_model() {
        assert_eq!(
            tasks(r#"{"architectures": ["JetMoeForSequenceClassification"]}"#),
            ["sequence-classification", "backbone"]
        );
        assert_eq!(tasks(r#"{"architectures": ["JetMoEForCausalLM"]}"#), ["causal-lm", "backbone"]);
    }

    #[test]
    fn every_task_is_exported_with_every_set_of_outputs() {
        let case = case("dense");
        let exports = Export::all_of(&case);
        assert_eq!(exports.len(), case.tasks.len() * OUTPUTS.len());
        assert!(exports.iter().all(|export| export.opset.is_none() && *export.storage == FLOAT32));
    }

    #[test]
    fn tiny_is_exported_with_every_opset() {
        let case = case("tiny");
        let opsets: HashSet<_> = Export::all_of(&case).iter().map(|export| export.opset).collect();
        assert_eq!(opsets.len(), OPSETS.len() + 1);
    }

    #[test]
    fn two_cases_are_exported_with_every_storage() {
        for name in STORAGE_CASES {
            let case = case(name);
            let exports = Export::all_of(&case);
            for storage in &STORAGES {
                let of_it: Vec<_> = exports.iter().filter(|export| export.storage == storage).collect();
                assert_eq!(of_it.len(), 1, "{name}, {storage:?}");
                assert_eq!(of_it[0].task, "causal-lm");
                // without router logits nobody could tell which tokens went another way
                assert!(of_it[0].outputs.contains("router-logits"));
            }
        }
    }

    #[test]
    fn a_folder_says_how_weights_are_stored() {
        for storage in &STORAGES {
            let mut said: Vec<String> = Vec::new();
            let mut arguments = storage.arguments.iter();
            while let Some(argument) = arguments.next() {
                said.push(match *argument {
                    "--zero-points" => "zero-points".to_owned(),
                    _ => arguments.next().unwrap().replace(':', "-"),
                });
            }
            assert_eq!(storage.folder, said.join("+"));
        }
    }

    #[test]
    fn what_is_compared_with_a_portable_graph_has_one() {
        for folder in STORAGES.iter().filter_map(|storage| storage.folder.strip_suffix("+onnxruntime")) {
            assert!(STORAGES.iter().any(|storage| storage.folder == folder), "{folder}");
        }
    }

    #[test]
    fn every_export_has_a_folder_of_its_own() {
        let case = case("tiny");
        let exports = Export::all_of(&case);
        let folders: HashSet<_> = exports.iter().map(Export::folder).collect();
        assert_eq!(folders.len(), exports.len());
        assert!(
            folders.contains(Path::new("tiny/causal-lm/hidden-states+router-logits/18/f32")),
            "{folders:?}"
        );
        assert!(folders.contains(Path::new("tiny/backbone/plain/default/f32")), "{folders:?}");
    }
}
