//! One case: a mutated model, a command on it, and how it ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use jetmoe_artifact::names as artifact_names;
use jetmoe_checkpoint::names;
use jetmoe_fuzz::{Choices, copy_folder};

use super::bases::{Base, BaseKind, Bases};
use super::input::Input;
use super::outcome::{Outcome, describe};
use super::output;
use super::plan::{Action, Mutator, Plan};
use super::process::{self, Ended};
use super::snapshot::Snapshot;

/// The commands.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Their folder.
    pub(crate) folder: PathBuf,
    /// The libonnxruntime that they load.
    pub(crate) library: PathBuf,
}

impl Programs {
    /// A command that runs in `folder`, which is also its home.
    pub(crate) fn command(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.current_dir(folder).env_clear();
        command.envs([("ORT_DYLIB_PATH", self.library.as_os_str())]);
        command.envs([("HOME", folder.join(HOME)), ("TMPDIR", folder.join(TEMPORARY))]);
        // the commands and libraries of a user have no such limits; here several cases run at the same time
        command.envs([("HF_HUB_OFFLINE", "1"), ("RUST_BACKTRACE", "0"), ("RAYON_NUM_THREADS", "2")]);
        command
    }
}

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const HOME: &str = "home";
const TEMPORARY: &str = "temporary";

/// What a command may write to, in the folder of a case, and what it prints.
const WRITABLE: [&str; 5] = [OUTPUT, HOME, TEMPORARY, "stdout", "stderr"];

/// A case that was run.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) outcome: Outcome,
    pub(crate) ended: Ended,
    /// The command, as a person types it in the folder of the case.
    pub(crate) line: String,
    /// What was touched outside of the output folder.
    pub(crate) touched: Vec<PathBuf>,
}

/// Runs the case of a seed in `folder`, which is removed before.
pub(crate) fn run(seed: u64, folder: &Path, programs: &Programs, bases: &Bases) -> Result<Finished> {
    let mut choices = Choices::of_seed(seed);
    let plan = Plan::choose(&mut choices).context("every seed has a plan")?;
    make_folder(folder)?;
    copy_folder(&bases.path(plan.base.name), &folder.join(INPUT))?;
    Input { folder: &folder.join(INPUT), bases, plan }.mutate(&mut choices)?;
    if plan.mutator == Mutator::Output {
        output::prepare(&folder.join(OUTPUT), bases, &mut choices)?;
    }
    let (program, arguments) = command_line(plan, bases, &mut choices);

    let before = Snapshot::take(folder, &WRITABLE)?;
    let mut command = programs.command(program, folder);
    let ended = process::run(command.args(&arguments), folder)?;
    let after = Snapshot::take(folder, &WRITABLE)?;
    let touched: Vec<PathBuf> = before.differences(&after).into_iter().map(Path::to_owned).collect();
    let outcome = match touched.is_empty() {
        true => Outcome::of(&ended, plan.action.prints_text()),
        false => Outcome::Outside,
    };
    let words =
        arguments.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    let line = format!("{program} {}", words.collect::<Vec<_>>().join(" "));
    Ok(Finished { seed, plan, outcome, ended, line, touched })
}

/// Files around the folders of a command that it must not touch.
fn make_folder(folder: &Path) -> Result<()> {
    const KEPT: &str = "this file stays as it is\n";
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    for name in [HOME, TEMPORARY, "outside/onnx/native"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for name in [
        "kept.txt",
        "outside/kept.txt",
        "outside/lock",
        "outside/onnx/model.onnx",
        "outside/onnx/model.onnx_data",
    ] {
        fs::write(folder.join(name), KEPT)?;
    }
    for name in [names::CONFIG, names::TOKENIZER, artifact_names::MANIFEST] {
        fs::write(folder.join("outside").join(name), "{}")?;
    }
    Ok(())
}

/// Program and arguments.
fn command_line(plan: Plan, bases: &Bases, choices: &mut Choices<'_>) -> (&'static str, Vec<String>) {
    const STORED: [&[&str]; 7] = [
        &[],
        &["--precision", "f16"],
        &["--precision", "q4"],
        &["--precision", "q4", "--profile", "native"],
        &["--precision", "int8", "--profile", "native"],
        &["--precision", "bf16", "--profile", "native"],
        &["--precision", "q4", "--profile", "onnxruntime", "--group-size", "16"],
    ];
    let mut words: Vec<&str> = Vec::new();
    let checkpoint;
    let is_json = choices.once_in(3);
    let program = match plan.action {
        Action::Run(backend) | Action::Chat(backend) => {
            words.extend([
                "run",
                "--model",
                INPUT,
                "--backend",
                backend.name(),
                "--prompt",
                "In the beginning",
            ]);
            words.extend(["--max-new-tokens", "4", "--threads", "1"]);
            if matches!(plan.action, Action::Chat(_)) {
                words.push("--chat");
                if choices.once_in(2) {
                    words.extend(["--system", "Be brief."]);
                }
            }
            "jetmoe"
        }
        Action::Classify(backend) => {
            words.extend(["classify", "--model", INPUT, "--backend", backend.name(), "--threads", "1"]);
            words.extend(["In the beginning", "a text of several words"]);
            "jetmoe"
        }
        Action::Verify(backend) => {
            words.extend(["verify", "--model", INPUT, "--backend", backend.name(), "--threads", "1"]);
            if let BaseKind::Artifact(name) = plan.base.kind {
                checkpoint = bases.path(name).to_string_lossy().into_owned();
                words.extend(["--checkpoint", &checkpoint]);
            }
            "jetmoe"
        }
        Action::Inspect => {
            words.extend(["inspect", INPUT]);
            "jetmoe"
        }
        Action::InspectGraph => return ("jetmoe", vec!["inspect".to_owned(), graph_path(plan.base, bases)]),
        Action::Export | Action::ExportVerify => {
            words.extend([INPUT, "--output", OUTPUT]);
            words.extend(choices.pick(&STORED).copied().unwrap_or_default());
            if plan.action == Action::ExportVerify {
                words.push("--verify");
            }
            if plan.mutator == Mutator::Output && !choices.once_in(4) {
                words.push("--force");
            }
            "jetmoe-export"
        }
    };
    if is_json && program == "jetmoe" {
        words.extend(["--format", "json"]);
    }
    (program, words.into_iter().map(str::to_owned).collect())
}

/// The graph of an artifact, as it was before mutations of the manifest.
fn graph_path(base: &Base, bases: &Bases) -> String {
    let manifest = bases.artifact(base).map(|(manifest, _)| manifest);
    let graph = manifest.ok().and_then(|manifest| Some(manifest.graphs.first()?.graph.path.clone()));
    format!("{INPUT}/{}", graph.unwrap_or_default())
}

impl Finished {
    /// A description for the folder of a failure.
    pub(crate) fn report(&self) -> String {
        let Plan { base, mutator, action } = self.plan;
        let mut report = format!(
            "seed {}: {}\nmodel {}, mutated: {}, command: {}\n{}\n\n$ {}\n",
            self.seed,
            self.outcome.name(),
            base.name,
            mutator.name(),
            action.name(),
            describe(&self.ended),
            self.line
        );
        for path in &self.touched {
            report.push_str(&format!("touched: {}\n", path.display()));
        }
        report
    }
}
