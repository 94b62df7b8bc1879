//! Where things lie.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Folders of the project. Chores run in `root`, so paths below it are used and shown relative to it.
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, relative to `root` if it lies there.
    pub(crate) target: PathBuf,
    /// Where cargo puts the commands it builds, relative to `root` if it lies there.
    binaries: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built from; its own place tells where cargo builds.
    pub(crate) fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().with_context(|| {
            format!(
                "the project is no longer at {}; build xtask again: touch crates/xtask/src/main.rs",
                root.display()
            )
        })?;
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        let binaries = program.parent().context("this program lies in no folder")?;
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

/// Size of the data file beside the graph in `folder`, by the beginning of its name.
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
