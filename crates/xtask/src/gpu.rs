//! `gpu`: proves CUDA on a machine that has a GPU, but neither Rust nor network. What runs there is Python, in `tests/gpu/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::demo::build_commands;
use crate::library::GPU;
use crate::python;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Folder of the scripts, relative to the root.
const SCRIPTS: &str = "tests/gpu";
/// Folder of the parts that travel, relative to the root and ignored by git.
const PARTS: &str = ".gpu";
/// The page that a report writes, relative to the root.
const PAGE: &str = "docs/gpu.md";
/// Compression by xz of parts that do not travel: the fastest.
const FASTEST: &str = "0";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build the commands, pack them with the libonnxruntime of CUDA into .gpu/, and print what to run on the machine with the GPU
    Pack(Pack),
    /// Do here what the printed commands do there: pack, unpack and run every step
    Run(Run),
    /// Write docs/gpu.md from the results of a machine with a GPU
    Report(Report),
}

#[derive(clap::Args)]
struct Pack {
    /// Compute capability of the GPU without the point: 90 for H100 and H200
    #[arg(long, default_value_t = 90)]
    architecture: u32,
    /// Pack a release build, which takes about 6 minutes more; what computes is optimized in the dev profile too
    #[arg(long)]
    release: bool,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    pack: Pack,
    /// Run on the CPU, with fewer cases and smaller sizes: proves the scripts, nothing about a GPU
    #[arg(long)]
    dry: bool,
}

#[derive(clap::Args)]
struct Report {
    /// results.json or its folder
    #[arg(value_name = "RESULTS")]
    results: PathBuf,
}

/// What parts are made for.
enum Purpose {
    /// Another machine: small, with instructions.
    Travel,
    /// This machine: made fast.
    RunHere,
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Action::Pack(options) => pack(workspace, steps, options, Path::new(PARTS), Purpose::Travel),
        Action::Run(options) if options.dry => dry_run(workspace, steps),
        Action::Run(options) => run_here(workspace, steps, &options.pack, &[]),
        Action::Report(options) => {
            let results = std::path::absolute(&options.results)?;
            let report = script(workspace, "report.py")?.arg(results).arg(PAGE);
            steps.run("report", &workspace.root, &report)
        }
    }
}

/// Tests the scripts and goes through all of them on the CPU, for CI.
pub(crate) fn dry_run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let tests = CommandLine::new(python::interpreter(workspace)?).args([
        "-m",
        "unittest",
        "discover",
        "--buffer",
        "--start-directory",
        SCRIPTS,
    ]);
    steps.run("test the scripts for a GPU", &workspace.root, &tests)?;
    run_here(workspace, steps, &Pack { architecture: 90, release: false }, &["--dry"])
}

/// Builds the commands and packs them into `folder`.
fn pack(
    workspace: &Workspace,
    steps: &mut Steps,
    options: &Pack,
    folder: &Path,
    purpose: Purpose,
) -> Result<()> {
    GPU.fetch(workspace, steps)?;
    let commands = if options.release {
        let build = CommandLine::cargo(["build", "--release", "--workspace", "--bins"]);
        steps.run("build the commands for release", &workspace.root, &build)?;
        workspace.target.join("release")
    } else {
        build_commands(workspace, steps)?;
        let program = workspace.binary("jetmoe");
        program.parent().context("the command has no folder")?.to_owned()
    };
    let mut pack = script(workspace, "pack.py")?
        .arg("--commands")
        .arg(commands)
        .arg("--libraries")
        .arg(GPU.folder()?)
        .args(["--architecture", &options.architecture.to_string()])
        .args(["--profile", if options.release { "release" } else { "dev" }])
        .arg("--output")
        .arg(folder);
    pack = match purpose {
        Purpose::Travel => pack.arg("--instructions"),
        Purpose::RunHere => pack.args(["--preset", FASTEST]),
    };
    steps.run("pack", &workspace.root, &pack)
}

/// Packs, collects the parts in one folder as the copies to the other machine do, runs the steps and writes a page of the results.
fn run_here(workspace: &Workspace, steps: &mut Steps, options: &Pack, dry: &[&str]) -> Result<()> {
    let folder = workspace.target.join("gpu");
    let (parts, collected) = (folder.join("parts"), folder.join("collected"));
    let (results, page) = (folder.join("results"), folder.join("gpu.md"));
    for left_over in [&collected, &results] {
        remove(&workspace.root.join(left_over))?;
    }
    pack(workspace, steps, options, &parts, Purpose::RunHere)?;
    collect(&workspace.root.join(&parts), &workspace.root.join(&collected))
        .with_context(|| format!("cannot copy the parts from {}", parts.display()))?;
    let list =
        script(workspace, "run.py")?.arg("--parts").arg(&collected).arg("--output").arg(&results).args(dry);
    let outcome = steps.run("steps for a GPU", &workspace.root, &list);
    // the page of a run with failures names them
    let report = script(workspace, "report.py")?.arg(&results).arg(&page);
    let report = if dry.is_empty() { report } else { report.arg("--allow-dry") };
    let reported = steps.run("report", &workspace.root, &report);
    // unpacked libraries and graphs: gigabytes
    remove(&workspace.root.join(&collected))?;
    outcome.and(reported)
}

/// Moves the files of all parts into one folder.
fn collect(parts: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut found = 0;
    for part in fs::read_dir(parts)? {
        for file in fs::read_dir(part?.path())? {
            let file = file?;
            fs::rename(file.path(), folder.join(file.file_name()))?;
            found += 1;
        }
    }
    ensure!(found > 0, "there is no part");
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// A script of `tests/gpu/`. It leaves no compiled modules behind.
fn script(workspace: &Workspace, name: &str) -> Result<CommandLine> {
    let interpreter = python::interpreter(workspace)?;
    Ok(CommandLine::new(interpreter).arg("-B").arg(Path::new(SCRIPTS).join(name)))
}

#[cfg(test)]
mod tests {
    use super::collect;

    #[test]
    fn the_files_of_all_parts_are_in_one_folder_as_after_the_copies() {
        let root = std::env::temp_dir().join(format!("jetmoe-xtask-gpu-{}", std::process::id()));
        let (parts, folder) = (root.join("parts"), root.join("collected"));
        for (part, file) in [("part-1", "payload.01"), ("part-2", "payload.02"), ("part-2", "manifest.json")]
        {
            std::fs::create_dir_all(parts.join(part)).unwrap();
            std::fs::write(parts.join(part).join(file), file).unwrap();
        }
        collect(&parts, &folder).unwrap();
        for file in ["payload.01", "payload.02", "manifest.json"] {
            assert_eq!(std::fs::read_to_string(folder.join(file)).unwrap(), file);
        }
        assert!(collect(&parts, &folder).is_err(), "the parts are gone");
        std::fs::remove_dir_all(root).unwrap();
    }
}
