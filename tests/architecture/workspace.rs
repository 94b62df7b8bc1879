//! The workspace as cargo and the file system know it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The one crate that shares code among test suites. Only dev-dependencies name it.
pub(crate) const TESTING: &str = "jetmoe-testing";

/// A crate of the workspace, by `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// The table of the manifest that a dependency is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DependencyKind {
    /// `dependencies`: what the crate itself needs.
    Normal,
    /// `dev-dependencies`: what its tests, benchmarks and examples need.
    Dev,
    /// `build-dependencies`: without build scripts, they only enable features.
    Build,
}

impl Package {
    /// Names of this crate's dependencies.
    pub(crate) fn dependencies(&self, kind: DependencyKind) -> BTreeSet<&str> {
        let kind = match kind {
            DependencyKind::Normal => None,
            DependencyKind::Dev => Some("dev"),
            DependencyKind::Build => Some("build"),
        };
        let dependencies = self.dependencies.iter().filter(|dependency| dependency.kind.as_deref() == kind);
        dependencies.map(|dependency| dependency.name.as_str()).collect()
    }

    /// Its folder, relative to the root.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap().strip_prefix(root()).unwrap()
    }

    /// Its `Cargo.toml`.
    pub(crate) fn manifest(&self) -> String {
        fs::read_to_string(&self.manifest_path).unwrap()
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every crate of the workspace.
pub(crate) fn packages() -> Vec<Package> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let Metadata { packages } =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    packages
}

/// The output of cargo, which resolves and fetches nothing: the running test was built with all of it.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A Rust source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The part that is compiled into the product: no comments, no tests.
    pub(crate) fn code(&self) -> String {
        let (code, _) = self.text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&self.text, ""));
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }
}

/// Every Rust file below a folder of the repository.
pub(crate) fn rust_files(folder: &str) -> Vec<Source> {
    source_files(folder, "rs")
}

/// Every file with an extension below a folder of the repository.
pub(crate) fn source_files(folder: &str, extension: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join(folder), extension, &mut files);
    assert!(!files.is_empty(), "{folder} holds no file .{extension}");
    files
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            files.push(Source { path, text });
        }
    }
}

/// Every Rust file that is compiled into a library or command of the workspace: below a `src`, and no test module.
pub(crate) fn product_files() -> Vec<Source> {
    let packages = packages().into_iter().filter(|package| package.name != TESTING);
    let folders = packages.map(|package| package.folder().join("src").to_str().unwrap().to_owned());
    let mut files: Vec<Source> = folders.flat_map(|folder| rust_files(&folder)).collect();
    let test_modules: BTreeSet<String> = files.iter().flat_map(|file| test_modules(&file.text)).collect();
    files.retain(|file| !test_modules.contains(Path::new(&file.path).file_stem().unwrap().to_str().unwrap()));
    files
}

/// Modules in files of their own that are compiled for tests only.
fn test_modules(text: &str) -> Vec<String> {
    let declared = text.split("#[cfg(test)]\nmod ").skip(1);
    declared.filter_map(|rest| rest.lines().next()?.strip_suffix(';').map(str::to_owned)).collect()
}
