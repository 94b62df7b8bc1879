//! A run in less memory than the weights take: a control group with a limit, an empty page cache, and how much of what the disk can
//! read becomes tokens.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{PROMPT, Usage, measure, mebibytes};
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Tokens that are generated in addition to the first one. Their time is that of a run less that of a run for one token.
const TOKENS: usize = 16;
/// Parts of the data file that are read at the same time to measure the disk, and the MiB of each.
const READERS: usize = 4;
const READER_MEBIBYTES: u64 = 512;
/// Where Linux empties the page cache.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// A control group with a memory limit, removed when it is dropped.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A group of version 1 or 2, whichever limits memory here.
    fn create(mebibytes: u64) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let (parent, limit) = match root.join("memory/memory.limit_in_bytes").exists() {
            true => (root.join("memory"), "memory.limit_in_bytes"),
            false => {
                let control = root.join("cgroup.subtree_control");
                fs::write(&control, "+memory")
                    .with_context(|| format!("cannot write {}", control.display()))?;
                (root.to_owned(), "memory.max")
            }
        };
        let folder = parent.join(format!("jetmoe-full-size-{}", std::process::id()));
        fs::create_dir(&folder)
            .with_context(|| format!("cannot create the control group {}; run as root", folder.display()))?;
        let group = ControlGroup(folder);
        let limit = group.0.join(limit);
        fs::write(&limit, (mebibytes << 20).to_string())
            .with_context(|| format!("cannot write {}", limit.display()))?;
        Ok(group)
    }

    /// A command that runs in the group.
    fn command(&self, command: &CommandLine) -> CommandLine {
        let processes = self.0.join("cgroup.procs");
        let shell = format!("echo $$ > {} && exec {command}", processes.display());
        CommandLine::new("sh").args(["-c", &shell])
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("the control group {} stays: {error}", self.0.display());
        }
    }
}

/// Runs the native graph of an artifact with each backend in `limit` MiB, and compares its tokens with those of a run without a limit.
pub(super) fn run(
    workspace: &Workspace,
    steps: &mut Steps,
    artifact: &Path,
    data: &Path,
    limit: u64,
) -> Result<Vec<String>> {
    let group = ControlGroup::create(limit)?;
    let mut rows = Vec::new();
    for backend in ["ort", "tract"] {
        let generate = |tokens: usize| {
            CommandLine::new(workspace.binary("jetmoe"))
                .arg("run")
                .arg("--model")
                .arg(artifact)
                .args(["--precision", "q4", "--profile", "native", "--backend", backend, "--format", "json"])
                .args(["--prompt", PROMPT, "--max-new-tokens", &tokens.to_string()])
        };
        let title = format!("{TOKENS} tokens in {limit} MiB, {backend}");
        let row = steps.run_step(&title, &format!("$ {}", generate(TOKENS + 1)), || {
            let text = |command: CommandLine| -> Result<Vec<u8>> {
                let output = command.output(&workspace.root)?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Ok(output.stdout)
            };
            let expected = text(generate(TOKENS + 1))?;
            let disk = disk_rate(workspace, data)?;
            let limited = |tokens: usize| -> Result<Usage> {
                drop_caches()?;
                measure(&group.command(&generate(tokens)), &workspace.root)
            };
            let (first, all) = (limited(1)?, limited(TOKENS + 1)?);
            ensure!(
                text(group.command(&generate(TOKENS + 1)))? == expected,
                "{backend} generates other tokens in {limit} MiB than without a limit"
            );
            let seconds = (all.seconds - first.seconds) / TOKENS as f64;
            let read = all.read.saturating_sub(first.read) as f64 / TOKENS as f64;
            let disk = (disk + disk_rate(workspace, data)?) / 2.0;
            Ok(format!(
                "| {backend} | {:.1} s | {seconds:.2} s | {:.2} GB | {:.2} GB/s | {:.2} | {} |",
                first.seconds,
                read / 1e9,
                disk / 1e9,
                read / disk / seconds,
                mebibytes(all.anonymous)
            ))
        })?;
        rows.push(row);
    }
    Ok(rows)
}

/// Columns of the rows of [`run`].
pub(super) const COLUMNS: &str = "| backend | first token | each further token | read for it | disk | share of the disk's rate | \
                                  peak anonymous memory |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |";

fn drop_caches() -> Result<()> {
    fs::write(DROP_CACHES, "3").with_context(|| format!("cannot write {DROP_CACHES}; run as root"))
}

/// Bytes a second that the disk reads of a file, without the page cache.
fn disk_rate(workspace: &Workspace, file: &Path) -> Result<f64> {
    let length = workspace.root.join(file).metadata().context("the data file is missing")?.len() >> 20;
    let count = READER_MEBIBYTES.min(length / READERS as u64);
    let started = Instant::now();
    let readers = (0..READERS as u64).map(|reader| {
        let skip = reader * (length / READERS as u64);
        CommandLine::new("dd")
            .arg(format!("if={}", file.display()))
            .args(["of=/dev/null", "bs=1M", "iflag=direct", "status=none"])
            .args([format!("skip={skip}"), format!("count={count}")])
            .start(&workspace.root)
    });
    for mut reader in readers.collect::<Result<Vec<_>>>()? {
        ensure!(reader.wait()?.success(), "dd cannot read {}", file.display());
    }
    Ok(((READERS as u64 * count) << 20) as f64 / started.elapsed().as_secs_f64())
}
