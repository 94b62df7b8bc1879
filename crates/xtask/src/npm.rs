//! Packages that only the registry of npm has: prebuilt libraries of llama.cpp, clients of the server.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::python::{Stamp, cache_folder};
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// The files that pin a package, with the digest of its contents.
const PINS: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs what the files in `pins`, a folder relative to the root, pin into a folder of the cache, unless it is up to
/// date.
pub(crate) fn install(workspace: &Workspace, steps: &mut Steps, name: &str, pins: &str) -> Result<()> {
    let folder = cache_folder(name);
    let installed = workspace.root.join(&folder);
    let pins = workspace.root.join(pins);
    let stamp = stamp(&installed, &pins)?;
    if stamp.is_there() {
        println!("{}: up to date", folder.display());
        return Ok(());
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let version = CommandLine::new(npm).arg("--version");
    if !version.output(&workspace.root).is_ok_and(|output| output.status.success()) {
        bail!(
            "npm was not found, which installs {name}\n\
             install it, for instance with `apt-get install npm`; `cargo xtask bench` can leave {name} out by `--targets`"
        );
    }
    if installed.exists() {
        fs::remove_dir_all(&installed).with_context(|| format!("cannot empty {}", installed.display()))?;
    }
    fs::create_dir_all(&installed).with_context(|| format!("cannot create {}", installed.display()))?;
    copy(&pins, &installed, PINS[0])?;
    copy(&pins, &installed, PINS[1])?;
    let install =
        CommandLine::new(npm).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
    steps.run(&format!("install {name}"), &workspace.root, &install.arg(&folder))?;
    stamp.write()
}

/// The lock says what is installed.
fn stamp(installed: &Path, pins: &Path) -> Result<Stamp> {
    let path = pins.join(PINS[1]);
    let lock = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Stamp::of(installed, lock))
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    fs::copy(from.join(name), to.join(name))
        .with_context(|| format!("cannot copy {}", from.join(name).display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_up_to_date_with_the_same_pins_only() {
        let folder = std::env::temp_dir().join(format!("jetmoe-npm-{}", std::process::id()));
        let (installed, pins) = (folder.join("installed"), folder.join("pins"));
        for folder in [&installed, &pins] {
            fs::create_dir_all(folder).unwrap();
        }
        let is_up_to_date = || stamp(&installed, &pins).map(|stamp| stamp.is_there());
        assert!(is_up_to_date().is_err(), "there is no lock");
        fs::write(pins.join(PINS[1]), "1").unwrap();
        assert!(!is_up_to_date().unwrap());
        stamp(&installed, &pins).unwrap().write().unwrap();
        assert!(is_up_to_date().unwrap());
        fs::write(pins.join(PINS[1]), "2").unwrap();
        assert!(!is_up_to_date().unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_lock_pins_the_packages_by_their_digest() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jetmoe-bench/baselines/llama-cpp");
        let lock = fs::read_to_string(folder.join(PINS[1])).unwrap();
        let manifest = fs::read_to_string(folder.join(PINS[0])).unwrap();
        let packages = manifest.matches("\"@node-llama-cpp/").count();
        assert!(packages > 0);
        assert_eq!(lock.matches("\"integrity\": \"sha512-").count(), packages, "{lock}");
    }
}
