//! libonnxruntime, from the wheels on PyPI.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::python;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// A Python package that contains a libonnxruntime.
pub(crate) struct Distribution {
    /// Name on PyPI.
    package: &'static str,
    /// The version that the project is tested with.
    version: &'static str,
    /// Suffix of its folder in the cache, after the version. `jetmoe-rt` searches for it.
    suffix: &'static str,
    /// File that pins the wheels by digest.
    requirements: &'static str,
    /// Shared libraries to install.
    parts: Parts,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// libonnxruntime alone.
    Library,
    /// All: the execution providers, and the libraries that they link to.
    All,
}

/// For the CPU.
pub(crate) const CPU: Distribution = Distribution {
    package: "onnxruntime",
    version: "1.32.0",
    suffix: "",
    requirements: "crates/xtask/onnxruntime-requirements.txt",
    parts: Parts::Library,
};

/// With the CUDA and TensorRT providers. Its releases are later than those for the CPU.
pub(crate) const GPU: Distribution = Distribution {
    package: "onnxruntime-gpu",
    version: "1.31.1",
    suffix: "-gpu",
    requirements: "crates/xtask/onnxruntime-gpu-requirements.txt",
    parts: Parts::All,
};

/// With the OpenVINO provider, and OpenVINO.
pub(crate) const OPENVINO: Distribution = Distribution {
    package: "onnxruntime-openvino",
    version: "1.24.1",
    suffix: "-openvino",
    requirements: "crates/xtask/onnxruntime-openvino-requirements.txt",
    parts: Parts::All,
};

/// Path of the libonnxruntime to use. `jetmoe-rt` reads it too.
pub(crate) const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library that the user named.
fn named_library() -> Option<PathBuf> {
    std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Distribution {
    /// pip's name of the platform, and the file name of libonnxruntime in its wheel. System and processor are named as in
    /// [`std::env::consts`].
    fn wheel(&self, system: &str, processor: &str) -> Option<(&'static str, String)> {
        let linux = format!("libonnxruntime.so.{}", self.version);
        match (system, processor) {
            ("linux", "x86_64") => Some(("manylinux_2_28_x86_64", linux)),
            // the other packages are not tested on these systems, so their wheels are not pinned
            _ if self.parts == Parts::All => None,
            ("linux", "aarch64") => Some(("manylinux_2_28_aarch64", linux)),
            ("macos", "aarch64") => {
                Some(("macosx_14_0_arm64", format!("libonnxruntime.{}.dylib", self.version)))
            }
            ("windows", "x86_64") => Some(("win_amd64", "onnxruntime.dll".to_owned())),
            ("windows", "aarch64") => Some(("win_arm64", "onnxruntime.dll".to_owned())),
            _ => None,
        }
    }

    /// Its folder in the cache, where `jetmoe-rt` searches for libonnxruntime.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        let project = directories::ProjectDirs::from("", "", "jetmoe").with_context(|| {
            format!(
                "there is no home folder to keep libonnxruntime in; set HOME, or name a library in {LIBRARY_VARIABLE}"
            )
        })?;
        Ok(project.cache_dir().join("onnxruntime").join(format!("{}{}", self.version, self.suffix)))
    }

    /// Path of the library that the user named, or of the installed one.
    pub(crate) fn library(&self) -> Result<PathBuf> {
        match named_library() {
            Some(named) => Ok(named),
            None => Ok(self.folder()?.join(self.wheel_here()?.1)),
        }
    }

    /// [`Distribution::wheel`] of this machine.
    fn wheel_here(&self) -> Result<(&'static str, String)> {
        let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
        let (package, version) = (self.package, self.version);
        self.wheel(system, processor).with_context(|| {
            format!(
                "no wheel of {package} {version} is pinned for {system} on {processor}; `pip install {package}`, or build \
                 one and name it in {LIBRARY_VARIABLE}"
            )
        })
    }

    /// Fetches it, unless it is installed or the user named another.
    pub(crate) fn fetch_unless_named(&self, workspace: &Workspace, steps: &mut Steps) -> Result<()> {
        match named_library() {
            Some(chosen) => {
                println!("libonnxruntime: {} by {LIBRARY_VARIABLE}", chosen.display());
                Ok(())
            }
            None => self.fetch(workspace, steps),
        }
    }

    /// Installs it in the cache, unless it is there.
    pub(crate) fn fetch(&self, workspace: &Workspace, steps: &mut Steps) -> Result<()> {
        let (package, version) = (self.package, self.version);
        let (platform, file_name) = self.wheel_here()?;
        let folder = self.folder()?;
        let library = folder.join(&file_name);
        if library.is_file() {
            println!("{package} {version}: up to date ({})", library.display());
            return Ok(());
        }

        let interpreter = python::interpreter(workspace)?;
        let downloads = python::cache_folder(&format!("{package}-wheel"));
        // the wheels for all Python versions contain the same library, so one wheel is enough
        let download = CommandLine::new(&interpreter)
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11"])
            .args(["--abi", "cp311", "--platform", platform])
            .args(["--require-hashes", "--requirement", self.requirements, "--dest"])
            .arg(&downloads);
        steps.run(&format!("fetch {package}"), &workspace.root, &download).map_err(|error| {
            anyhow!(
                "{error:#}\nwithout network, copy a libonnxruntime to {} or name it in {LIBRARY_VARIABLE}",
                library.display()
            )
        })?;

        let name = package.replace('-', "_");
        let wheel = downloads.join(format!("{name}-{version}-cp311-cp311-{platform}.whl"));
        let unpack =
            CommandLine::new(&interpreter).args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&downloads);
        steps.run(&format!("unpack {package}"), &workspace.root, &unpack)?;

        let unpacked = workspace.root.join(&downloads).join("onnxruntime").join("capi");
        steps.run_step(&format!("install {package}"), &format!("copy it to {}", folder.display()), || {
            self.install(&unpacked, &file_name, &folder)
                .with_context(|| format!("cannot copy {} to {}", unpacked.display(), folder.display()))
        })?;
        // if that fails, it only takes disk space
        let _ = fs::remove_dir_all(workspace.root.join(&downloads));
        Ok(())
    }

    /// Copies libraries into the cache.
    fn install(&self, unpacked: &Path, library: &str, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        // under a temporary name until the copy is complete
        let copy = |name: &str| {
            let partial = folder.join(format!("partial-{}", std::process::id()));
            fs::copy(unpacked.join(name), &partial)
                .and_then(|_| fs::rename(&partial, folder.join(name)))
                .inspect_err(|_| drop(fs::remove_file(&partial)))
        };
        if self.parts == Parts::All {
            for entry in fs::read_dir(unpacked)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with("lib") && name != library {
                    copy(&name)?;
                }
            }
        }
        // last, because it needs the others
        copy(library)
    }
}

#[cfg(test)]
mod tests;
