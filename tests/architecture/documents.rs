//! The documents at the root: the files that they name exist.

use std::fs;
use std::path::Path;

use crate::workspace::{root, rust_files};

fn documents() -> Vec<(String, String)> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    pages.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let files: Vec<_> = ["crates", "src", "tests", "examples"].into_iter().flat_map(rust_files).collect();
    let mut named = 0;
    for (document, text) in documents() {
        for file in
            text.split('`').filter(|word| word.ends_with(".rs") && !word.contains(char::is_whitespace))
        {
            let exists = files.iter().any(|source| Path::new(&source.path).ends_with(file));
            assert!(exists, "{document} names {file}, which does not exist");
            named += 1;
        }
    }
    assert!(named > 0, "no document names a source file");
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    for (document, text) in documents() {
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let exists = target.is_empty() || target.starts_with("https://") || root().join(target).exists();
            assert!(exists, "{document} links to {target}, which does not exist");
        }
    }
}
