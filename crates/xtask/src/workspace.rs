//! Folders of the project.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Folders of the project. Tasks run in `root`, so paths below it are relative to it.
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, relative to `root` if it is below it.
    pub(crate) target: PathBuf,
    /// Folder of the commands that cargo builds, relative to `root` if it is below it.
    binaries: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built from. The path of this program gives the target folder.
    pub(crate) fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().with_context(|| {
            format!(
                "the project is no longer at {}; build xtask again: touch crates/xtask/src/main.rs",
                root.display()
            )
        })?;
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let binaries = program.parent().context("this program has no folder")?;
        let target = binaries.parent().unwrap_or(binaries);
        let relative = |folder: &Path| folder.strip_prefix(&root).unwrap_or(folder).to_owned();
        Ok(Workspace { target: relative(target), binaries: relative(binaries), root })
    }

    /// A command of the project, built by [`build_commands`](crate::demo::build_commands).
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(format!("{name}{EXE_SUFFIX}"))
    }

    /// A program of `examples/`.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.binaries.join("examples").join(format!("{name}{EXE_SUFFIX}"))
    }
}

/// Size of the data file in a folder of graphs, by the prefix of its name.
pub(crate) fn data_bytes(folder: &Path, prefix: &str) -> Result<u64> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && name.starts_with(prefix) && !name.ends_with(".onnx") {
            return Ok(entry.metadata()?.len());
        }
    }
    bail!("{} holds no data file {prefix}*", folder.display())
}
