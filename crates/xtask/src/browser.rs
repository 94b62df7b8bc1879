//! `browser`: opens the HTML pages of `jetmoe-view` in headless Chromium.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::python::BROWSER;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Names another Chromium or Chrome.
const BROWSER_VARIABLE: &str = "CHROMIUM";

/// Where distributions install one.
const PLACES: [&str; 4] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/snap/bin/chromium"];

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let root = workspace.root.as_path();
    let browser = chromium(workspace, steps)?;
    BROWSER.prepare(workspace, steps)?;
    // the build of `cargo test`, because of `--workspace`
    let build = CommandLine::cargo(["build", "--workspace", "--examples"]);
    steps.run("build the examples", root, &build)?;
    let folder = workspace.target.join("browser");
    let write = CommandLine::new(workspace.example("synthetic")).arg(&folder);
    steps.run("write synthetic pages", root, &write)?;
    let check = CommandLine::new(BROWSER.program("python")).arg("tests/browser/check.py").arg(&folder);
    steps.run("pages in a browser", root, &check.arg(browser))
}

/// An installed Chromium. In CI, as root on Debian, it is installed.
pub(crate) fn chromium(workspace: &Workspace, steps: &mut Steps) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(BROWSER_VARIABLE) {
        let named = PathBuf::from(named);
        ensure!(named.is_file(), "{}, which {BROWSER_VARIABLE} names, is not a file", named.display());
        return Ok(named);
    }
    if let Some(found) = installed() {
        return Ok(found);
    }
    install_in_ci(workspace, steps, "chromium")?;
    if let Some(found) = installed() {
        return Ok(found);
    }
    bail!(
        "no Chromium was found (looked for: {})\n\
         install it, for instance with `apt-get install chromium`, or name one in the environment variable \
         {BROWSER_VARIABLE}",
        PLACES.join(", ")
    )
}

/// Installs a package of Debian, in CI only.
pub(crate) fn install_in_ci(workspace: &Workspace, steps: &mut Steps, package: &str) -> Result<()> {
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        let install = CommandLine::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
        let update = install.clone().args(["update", "--quiet"]);
        steps.run("update Debian's list of packages", &workspace.root, &update)?;
        let install = install.args(["install", "--yes", "--quiet", "--no-install-recommends", package]);
        steps.run(&format!("install {package}"), &workspace.root, &install)?;
    }
    Ok(())
}

fn installed() -> Option<PathBuf> {
    PLACES.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}
