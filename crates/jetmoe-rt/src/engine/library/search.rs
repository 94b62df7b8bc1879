//! Where a libonnxruntime may lie.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{LibraryCandidate, LibraryOrigin, LibraryStatus};
use crate::Provider;

/// The environment variable that names the library; `ort` and other Rust programs know it too.
pub const LIBRARY_PATH_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The project's own cache of ONNX Runtime: one folder per version, each with a library in it; those with execution
/// providers beside the CPU's in folders of their own, as in `1.24.1-openvino`. `cargo xtask setup` fills it. `None` where the system has no home folder.
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

/// How long a Python interpreter may take to answer. It takes 0.1 s, or 1 s from a cold disk.
const PYTHON_PATIENCE: Duration = Duration::from_secs(5);

/// Prints the folder of the package `onnxruntime` without importing it. The current folder is taken out of the search,
/// as a library that happens to lie there is not installed.
const PYTHON_QUESTION: &str = "\
import sys
sys.path = [place for place in sys.path if place]
import importlib.util
package = importlib.util.find_spec('onnxruntime')
print((package.submodule_search_locations or [''])[0] if package else '')
";

/// The places to look at.
pub(super) struct Places {
    /// The environment variable's value.
    variable: Option<PathBuf>,
    /// The cache of versions.
    cache: Option<PathBuf>,
    /// Folders of the dynamic linker.
    system: Vec<PathBuf>,
    /// Roots of Python environments.
    environments: Vec<PathBuf>,
    /// Asks a Python interpreter for the folder of the package; it takes time, so it is called last.
    interpreter: fn() -> Result<PathBuf, String>,
}

impl Places {
    pub(super) fn of_this_machine() -> Self {
        let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        Places {
            variable: set(LIBRARY_PATH_VARIABLE),
            cache: cache_folder(),
            system: system_folders(),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set).collect(),
            interpreter: ask_python,
        }
    }

    /// Candidates in the order in which they are to be tried, each looked at when the iterator comes to it. Where a
    /// provider is asked for, a library without it is missing, unless somebody named it.
    pub(super) fn candidates(
        &self,
        explicit: Option<&Path>,
        provider: Option<Provider>,
    ) -> impl Iterator<Item = LibraryCandidate> + '_ {
        let given = explicit.map(|path| named_file(path, LibraryOrigin::Given));
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

/// A provider is a shared library beside libonnxruntime.
fn with_provider(candidate: LibraryCandidate, provider: Option<Provider>) -> LibraryCandidate {
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
    // where a link says another place, the provider lies beside the target
    let library = candidate.path.canonicalize().unwrap_or_else(|_| candidate.path.clone());
    if [&candidate.path, &library].iter().any(|path| path.with_file_name(&name).is_file()) {
        return candidate;
    }
    missing(candidate.path, candidate.origin, format!("no {name} beside it"))
}

/// A file that somebody named.
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
        // libonnxruntime.so says its version only by what it links to
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
fn newest_of_cache(cache: &Path, provider: Option<Provider>) -> LibraryCandidate {
    let suffix = provider.map_or("", Provider::cache_suffix);
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
        // an empty entry means the current folder to the linker; a library is not looked for there
        if !folder.as_os_str().is_empty() && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Where a Python environment keeps the library: in the package `onnxruntime`.
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

/// Asks the interpreter on the path for the folder of the package `onnxruntime`.
fn ask_python() -> Result<PathBuf, String> {
    let mut python = Command::new(PYTHON)
        .args(["-c", PYTHON_QUESTION])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be asked: {error}"))?;
    let asked = Instant::now();
    loop {
        match python.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if asked.elapsed() < PYTHON_PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            // a shim that waits for something; best effort, since it is not needed any more
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
mod tests {
    use std::fs;

    use super::*;

    /// Places of an empty machine under a temporary folder.
    fn places(root: &Path) -> Places {
        Places {
            variable: None,
            cache: Some(root.join("cache")),
            system: vec![root.join("system")],
            environments: vec![root.join("environment")],
            interpreter: || Err("has no package onnxruntime".to_owned()),
        }
    }

    /// The library's file name on this system, with a version or without.
    fn file_name(version: &str) -> String {
        let (stem, extension) = FILE_NAMES;
        let dot = if version.is_empty() { "" } else { "." };
        format!("{stem}{dot}{version}{extension}")
    }

    fn put(folder: &Path, name: &str) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        path
    }

    fn found(places: &Places, explicit: Option<&Path>) -> Vec<(LibraryOrigin, PathBuf)> {
        found_with(places, explicit, None)
    }

    fn found_with(
        places: &Places,
        explicit: Option<&Path>,
        provider: Option<Provider>,
    ) -> Vec<(LibraryOrigin, PathBuf)> {
        places
            .candidates(explicit, provider)
            .filter(|candidate| candidate.status == LibraryStatus::Found)
            .map(|candidate| (candidate.origin, candidate.path))
            .collect()
    }

    #[test]
    fn an_empty_machine_names_every_place_and_why_it_has_nothing() {
        let root = tempfile::tempdir().unwrap();
        let origins: Vec<_> = places(root.path())
            .candidates(None, None)
            .map(|candidate| {
                assert!(matches!(candidate.status, LibraryStatus::Missing(_)), "{candidate:?}");
                candidate.origin
            })
            .collect();
        let python = LibraryOrigin::Python;
        assert_eq!(origins, [LibraryOrigin::Cache, LibraryOrigin::System, python, python]);
    }

    #[test]
    fn places_are_tried_from_the_most_to_the_least_explicit() {
        let root = tempfile::tempdir().unwrap();
        let given = put(root.path(), "given");
        let variable = put(root.path(), "variable");
        let cached = put(&root.path().join("cache/1.32.0"), &file_name(""));
        let system = put(&root.path().join("system"), &file_name(""));
        let environment = root.path().join("environment");
        let site_packages = if cfg!(windows) { "Lib/site-packages" } else { "lib/python3.11/site-packages" };
        let python = put(&environment.join(site_packages).join("onnxruntime/capi"), &file_name(""));
        let places = Places { variable: Some(variable.clone()), ..places(root.path()) };
        assert_eq!(
            found(&places, Some(&given)),
            [
                (LibraryOrigin::Given, given.clone()),
                (LibraryOrigin::Variable, variable),
                (LibraryOrigin::Cache, cached),
                (LibraryOrigin::System, system),
                (LibraryOrigin::Python, python),
            ]
        );
    }

    #[test]
    fn the_newest_version_of_the_cache_wins() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("cache");
        put(&cache.join("1.9.0"), &file_name(""));
        let newest = put(&cache.join("1.32.0"), &file_name(""));
        put(&cache.join("unfinished"), &file_name(""));
        fs::create_dir_all(cache.join("1.40.0")).unwrap();
        assert_eq!(found(&places(root.path()), None), [(LibraryOrigin::Cache, newest)]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_provider_takes_the_library_that_lies_beside_it_unless_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("cache");
        let plain = put(&cache.join("1.40.0"), &file_name(""));
        let fetched = put(&cache.join("1.24.1-openvino"), &file_name(""));
        put(&cache.join("1.24.1-openvino"), "libonnxruntime_providers_openvino.so");
        put(&cache.join("1.30.0-gpu"), &file_name(""));
        put(&root.path().join("system"), &file_name(""));
        let given = put(root.path(), "given");
        let places = places(root.path());
        let openvino = Some(Provider::OpenVino);
        assert_eq!(found_with(&places, None, openvino), [(LibraryOrigin::Cache, fetched)]);
        assert_eq!(found_with(&places, Some(&given), openvino)[0], (LibraryOrigin::Given, given));
        // the library without the provider that its folder promises, and those that promise none
        assert_eq!(found_with(&places, None, Some(Provider::Cuda)), []);
        let why = places.candidates(None, Some(Provider::Cuda)).next().unwrap().status.to_string();
        assert_eq!(why, "no libonnxruntime_providers_cuda.so beside it");
        assert_eq!(found(&places, None)[0], (LibraryOrigin::Cache, plain));
    }

    #[test]
    fn the_newest_version_of_a_folder_wins_and_other_files_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let system = root.path().join("system");
        put(&system, &file_name("1.9.0"));
        let newest = put(&system, &file_name("1.32.0"));
        put(&system, "libonnxruntime_providers_shared.so");
        put(&system, &file_name("1.33.0").replace("onnxruntime", "onnxruntime_providers"));
        fs::create_dir_all(system.join(file_name("1.40.0"))).unwrap();
        assert_eq!(found(&places(root.path()), None), [(LibraryOrigin::System, newest)]);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_without_a_version_has_the_version_of_its_target() {
        let root = tempfile::tempdir().unwrap();
        let system = root.path().join("system");
        put(&system, &file_name("1.9.0"));
        let newest = put(&root.path().join("elsewhere"), &file_name("1.32.0"));
        let link = system.join(file_name(""));
        std::os::unix::fs::symlink(newest, &link).unwrap();
        assert_eq!(found(&places(root.path()), None), [(LibraryOrigin::System, link)]);
    }

    #[test]
    fn a_named_file_that_is_missing_says_so() {
        let root = tempfile::tempdir().unwrap();
        let why = |path: &Path| named_file(path, LibraryOrigin::Given).status.to_string();
        assert_eq!(why(&root.path().join("nowhere.so")), "no such file");
        assert_eq!(why(root.path()), "it is a folder; name the library itself");
    }

    #[test]
    fn python_answers_or_says_why_not() {
        match ask_python() {
            Ok(folder) => assert!(folder.is_absolute(), "{}", folder.display()),
            Err(why) => assert!(why.contains("has no package") || why.contains("asked"), "{why}"),
        }
    }
}
