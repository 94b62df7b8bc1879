//! Commands that are measured, and the files that benchmarks write.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A command of the project. Cargo builds it next to this program.
pub(crate) fn jetmoe(name: &str) -> Result<Command> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    Ok(Command::new(program.with_file_name(format!("{name}{EXE_SUFFIX}"))))
}

/// A folder to work in, below cargo's target folder.
pub(crate) fn work_folder(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let target = program.ancestors().nth(2).context("this program is not in cargo's target folder")?;
    Ok(target.join(name))
}

/// A Python program of `baselines/`, in the environment that `cargo xtask bench` creates.
pub(crate) fn baseline(program: &str) -> Command {
    let python = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    let mut command = Command::new(Path::new(".cache/baselines-venv").join(python));
    command.arg(Path::new("crates/jetmoe-bench/baselines").join(program));
    command
}

/// Runs a command, its output going to the terminal.
pub(crate) fn run(title: &str, command: &mut Command) -> Result<()> {
    println!("\n==> {title}\n    {command:?}");
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{title}: {status}\n{command:?}") }
}

/// Runs a command and returns what it prints.
pub(crate) fn output(title: &str, command: &mut Command) -> Result<String> {
    println!("==> {title}");
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{title}: {}\n{command:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that prints JSON.
pub(crate) fn json(title: &str, command: &mut Command) -> Result<Value> {
    let text = output(title, command)?;
    serde_json::from_str(&text).with_context(|| format!("no JSON was printed by\n{command:?}"))
}

/// Removes a folder with everything in it, if it exists.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Writes the files of a benchmark into a folder, which is created if it does not exist.
pub(crate) fn write_files(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
