//! Packages that only the registry of npm has: prebuilt libraries of llama.cpp.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::python::cache_folder;
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
    if is_up_to_date(&installed, &pins)? {
        println!("{}: up to date", folder.display());
        return Ok(());
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let version = CommandLine::new(npm).arg("--version");
    if !version.output(&workspace.root).is_ok_and(|output| output.status.success()) {
        bail!(
            "npm was not found, which installs {name}\n\
             install it, for instance with `apt-get install npm`, or leave {name} out of `--targets`"
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
    // written last, so that an incomplete installation is repeated
    fs::write(installed.join(STAMP), stamp(&pins)?)
        .with_context(|| format!("cannot write {}", installed.join(STAMP).display()))
}

/// Says what is installed.
const STAMP: &str = "stamp.txt";

fn stamp(pins: &Path) -> Result<String> {
    let path = pins.join(PINS[1]);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn is_up_to_date(installed: &Path, pins: &Path) -> Result<bool> {
    let stamp = stamp(pins)?;
    Ok(fs::read_to_string(installed.join(STAMP)).is_ok_and(|found| found == stamp))
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
        assert!(is_up_to_date(&installed, &pins).is_err(), "there is no lock");
        fs::write(pins.join(PINS[1]), "1").unwrap();
        assert!(!is_up_to_date(&installed, &pins).unwrap());
        fs::write(installed.join(STAMP), "1").unwrap();
        assert!(is_up_to_date(&installed, &pins).unwrap());
        fs::write(pins.join(PINS[1]), "2").unwrap();
        assert!(!is_up_to_date(&installed, &pins).unwrap());
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
