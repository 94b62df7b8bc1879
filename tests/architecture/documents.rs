//! Documents at the root, in `docs/` and of the crates: the files that they name exist.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{packages, root, rust_files};

/// Path and text of every document.
fn documents() -> Vec<(PathBuf, String)> {
    let crates = packages().into_iter().map(|package| root().join(package.folder()));
    let mut folders: Vec<PathBuf> = crates.chain([root().join("graphs")]).collect();
    let mut below = vec![root().join("docs")];
    while let Some(folder) = below.pop() {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        below.extend(entries.filter(|path| path.is_dir()));
        folders.push(folder);
    }
    let files = folders
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let documents = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_crate_has_a_readme() {
    for package in packages() {
        assert!(
            root().join(package.folder()).join("README.md").exists(),
            "{} has no README.md",
            package.name
        );
    }
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let folders = ["crates", "src", "tests", "examples"];
    let files: Vec<_> = folders.into_iter().flat_map(rust_files).map(|file| file.path).collect();
    let mut named = 0;
    for (document, text) in documents() {
        let words = text.split('`').filter(|word| !word.contains(char::is_whitespace) && !word.contains('*'));
        for file in words.filter(|word| word.ends_with(".rs") || word.starts_with("tests/")) {
            let exists =
                files.iter().any(|path| Path::new(path).ends_with(file)) || root().join(file).exists();
            assert!(exists, "{} names {file}, which does not exist", document.display());
            named += 1;
        }
    }
    assert!(named > 0, "no document names a source file");
}

#[test]
fn every_link_of_a_document_has_a_target() {
    for (document, text) in documents() {
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let exists = target.is_empty()
                || target.starts_with("https://")
                || document.with_file_name(target).exists();
            assert!(exists, "{} links to {target}, which does not exist", document.display());
        }
    }
}
