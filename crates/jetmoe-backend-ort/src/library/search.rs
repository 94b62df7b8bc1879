//! Searches for libonnxruntime.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jetmoe_backend::ExecutionProvider;

use super::{LibraryCandidate, LibraryOrigin, LibraryStatus};

/// The environment variable that names the library; `ort` and other Rust programs know it too.
pub const LIBRARY_PATH_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The project's own cache of ONNX Runtime: one folder per version, each with a library in it; those with other execution
/// providers than the CPU's in folders of their own, as in `1.24.1-openvino`. `None` where the user has no home folder.
///
/// On Linux `~/.cache/jetmoe/onnxruntime`, on macOS `~/Library/Caches/jetmoe/onnxruntime`, on Windows
/// `%LOCALAPPDATA%\jetmoe\cache\onnxruntime`.
pub fn cache_folder() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "jetmoe").map(|project| project.cache_dir().join("onnxruntime"))
}

/// Parts of the library's file name before and after the version.
const FILE_NAMES: (&str, &str) = if cfg!(windows) {
    ("onnxruntime", ".dll")
} else if cfg!(target_os = "macos") {
    ("libonnxruntime", ".dylib")
} else {
    ("libonnxruntime.so", "")
};

/// Time limit for a Python interpreter. It takes 0.1 s, or 1 s from a cold disk.
const PYTHON_TIMEOUT: Duration = Duration::from_secs(5);

/// Prints the folder of the package `onnxruntime` without importing it. The current folder is taken out of the search,
/// as a library that happens to be there is not installed.
const PYTHON_SCRIPT: &str = "\
import sys
sys.path = [path for path in sys.path if path]
import importlib.util
package = importlib.util.find_spec('onnxruntime')
print((package.submodule_search_locations or [''])[0] if package else '')
";

/// The paths to search.
pub(super) struct SearchPaths {
    /// The environment variable's value.
    variable: Option<PathBuf>,
    /// The cache of versions.
    cache: Option<PathBuf>,
    /// Folders of the dynamic linker.
    system: Vec<PathBuf>,
    /// Roots of Python environments.
    environments: Vec<PathBuf>,
    /// Runs a Python interpreter to find the folder of the package. It is slow, so it is called last.
    interpreter: fn() -> Result<PathBuf, String>,
}

impl SearchPaths {
    pub(super) fn of_this_machine() -> Self {
        let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        SearchPaths {
            variable: set(LIBRARY_PATH_VARIABLE),
            cache: cache_folder(),
            system: system_folders(),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set).collect(),
            interpreter: ask_python,
        }
    }

    /// Candidates in the order in which they are to be tried, each examined when the iterator reaches it. Where a
    /// provider is required, a library without it counts as missing, unless it was named.
    pub(super) fn candidates(
        &self,
        explicit: Option<&Path>,
        provider: Option<ExecutionProvider>,
    ) -> impl Iterator<Item = LibraryCandidate> + '_ {
        let given = explicit.map(|path| named_file(path, LibraryOrigin::Explicit));
        let variable = self.variable.as_deref().map(|path| named_file(path, LibraryOrigin::Variable));
        let cache = self.cache.iter().map(move |folder| newest_of_cache(folder, provider));
        let system = self.system.iter().map(|folder| newest_in(folder, LibraryOrigin::System));
        let python =
            self.environments.iter().map(|root| newest_in(&package_folder(root), LibraryOrigin::Python));
        let interpreter = std::iter::once_with(|| match (self.interpreter)() {
            Ok(package) => newest_in(&package.join("capi"), LibraryOrigin::Python),
            Err(why) => missing(PathBuf::from(PYTHON), LibraryOrigin::Python, why),
        });
        let found = cache.chain(system).chain(python).chain(interpreter);
        given
            .into_iter()
            .chain(variable)
            .chain(found.map(move |candidate| with_provider(candidate, provider)))
    }
}

fn missing(path: PathBuf, origin: LibraryOrigin, why: impl Into<String>) -> LibraryCandidate {
    LibraryCandidate { path, origin, status: LibraryStatus::Missing(why.into()) }
}

/// An execution provider is a shared library next to libonnxruntime.
fn with_provider(candidate: LibraryCandidate, provider: Option<ExecutionProvider>) -> LibraryCandidate {
    let Some(provider) = provider.filter(|_| candidate.status == LibraryStatus::Found) else {
        return candidate;
    };
    let (stem, extension) = if cfg!(windows) {
        ("", ".dll")
    } else if cfg!(target_os = "macos") {
        ("lib", ".dylib")
    } else {
        ("lib", ".so")
    };
    let name = format!("{stem}onnxruntime_providers_{provider}{extension}");
    // if the path is a link, the provider may be next to its target
    let library = candidate.path.canonicalize().unwrap_or_else(|_| candidate.path.clone());
    if [&candidate.path, &library].iter().any(|path| path.with_file_name(&name).is_file()) {
        return candidate;
    }
    missing(candidate.path, candidate.origin, format!("no {name} next to it"))
}

/// A file that was named.
fn named_file(path: &Path, origin: LibraryOrigin) -> LibraryCandidate {
    let path = path.to_owned();
    if path.is_file() {
        LibraryCandidate { path, origin, status: LibraryStatus::Found }
    } else if path.is_dir() {
        missing(path, origin, "it is a folder; name the library itself")
    } else {
        missing(path, origin, "no such file")
    }
}

/// The newest library of a folder.
fn newest_in(folder: &Path, origin: LibraryOrigin) -> LibraryCandidate {
    let (stem, extension) = FILE_NAMES;
    let Ok(entries) = folder.read_dir() else {
        return missing(folder.to_owned(), origin, "no such folder");
    };
    let libraries = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version = version_in_name(path.file_name()?.to_str()?)?;
        // libonnxruntime.so has its version only in the name of the file it links to
        let version = match path.canonicalize() {
            Ok(target) if version.is_empty() => {
                version_in_name(target.file_name()?.to_str()?).unwrap_or(version)
            }
            _ => version,
        };
        path.is_file().then_some((version, path))
    });
    match libraries.max() {
        Some((_, path)) => LibraryCandidate { path, origin, status: LibraryStatus::Found },
        None => missing(folder.to_owned(), origin, format!("no {stem}{extension} in it")),
    }
}

/// The library of the cache's newest version, of those that were fetched for a provider or of those that were for none.
fn newest_of_cache(cache: &Path, provider: Option<ExecutionProvider>) -> LibraryCandidate {
    let suffix = provider.map_or("", ExecutionProvider::cache_suffix);
    let origin = LibraryOrigin::Cache;
    let Ok(entries) = cache.read_dir() else {
        return missing(cache.to_owned(), origin, "no such folder");
    };
    let versions = entries.filter_map(|entry| {
        let folder = entry.ok()?.path();
        let version = parse_version(folder.file_name()?.to_str()?.strip_suffix(suffix)?)?;
        let candidate = newest_in(&folder, origin);
        (candidate.status == LibraryStatus::Found).then_some((version, candidate))
    });
    match versions.max_by(|left, right| left.0.cmp(&right.0)) {
        Some((_, candidate)) => candidate,
        None => missing(cache.to_owned(), origin, format!("no version{suffix} in it")),
    }
}

/// The version in a library's file name, empty if there is none; `None` for other files.
fn version_in_name(name: &str) -> Option<Vec<u32>> {
    let (stem, extension) = FILE_NAMES;
    let version = name.strip_prefix(stem)?.strip_suffix(extension)?;
    match version.strip_prefix('.') {
        Some(version) => parse_version(version),
        None => version.is_empty().then(Vec::new),
    }
}

fn parse_version(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// Folders where the dynamic linker looks.
fn system_folders() -> Vec<PathBuf> {
    let (variable, defaults): (&str, Vec<String>) = if cfg!(windows) {
        ("PATH", Vec::new())
    } else if cfg!(target_os = "macos") {
        ("DYLD_LIBRARY_PATH", ["/usr/local/lib", "/opt/homebrew/lib"].map(str::to_owned).to_vec())
    } else {
        let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
        let plain = ["/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64"].map(str::to_owned);
        ("LD_LIBRARY_PATH", plain.into_iter().chain([multiarch]).collect())
    };
    let from_variable = env::var_os(variable).unwrap_or_else(OsString::new);
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in env::split_paths(&from_variable).chain(defaults.into_iter().map(PathBuf::from)) {
        // an empty entry means the current folder to the linker, which is not searched
        if !folder.as_os_str().is_empty() && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The library of a Python environment, in the package `onnxruntime`.
fn package_folder(root: &Path) -> PathBuf {
    let in_package = Path::new("site-packages").join("onnxruntime").join("capi");
    if cfg!(windows) {
        return root.join("Lib").join(in_package);
    }
    let libraries = root.join("lib");
    let mut pythons: Vec<PathBuf> = libraries
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        .map(|folder| folder.join(&in_package))
        .collect();
    pythons.sort();
    let with_package = pythons.iter().find(|folder| folder.is_dir()).or(pythons.first());
    with_package.cloned().unwrap_or_else(|| libraries.join("python3").join(in_package))
}

const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// Runs the interpreter on the path to find the folder of the package `onnxruntime`.
fn ask_python() -> Result<PathBuf, String> {
    let mut python = Command::new(PYTHON)
        .args(["-c", PYTHON_SCRIPT])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be asked: {error}"))?;
    let asked = Instant::now();
    loop {
        match python.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if asked.elapsed() < PYTHON_TIMEOUT => std::thread::sleep(Duration::from_millis(5)),
            // a shim that waits for input; best effort, because the result is not needed any more
            Ok(None) => {
                let _ = python.kill();
                let _ = python.wait();
                return Err("does not answer".to_owned());
            }
            Err(error) => return Err(format!("cannot be asked: {error}")),
        }
    }
    let answer = python.wait_with_output().map_err(|error| format!("cannot be asked: {error}"))?;
    match String::from_utf8_lossy(&answer.stdout).trim() {
        "" => Err("has no package onnxruntime".to_owned()),
        folder => Ok(PathBuf::from(folder)),
    }
}

#[cfg(test)]
mod tests;
