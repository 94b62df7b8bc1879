//! The Cargo manifests: one version table, reasons, nothing said twice.

use std::collections::BTreeSet;
use std::path::Path;

use crate::workspace::{DependencyKind, Source, TESTING, packages, product_files, root};

/// Lines of a table of a manifest, without blank lines and comments of their own.
fn table<'m>(manifest: &'m str, name: &str) -> Vec<&'m str> {
    let heading = format!("[{name}]");
    let lines = manifest.lines().skip_while(move |line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The external crates of the version table: name, and the line.
fn version_table(manifest: &str) -> Vec<(&str, &str)> {
    let entries = table(manifest, "workspace.dependencies").into_iter();
    let entries = entries.map(|line| (line.split(' ').next().unwrap_or(line), line));
    entries.filter(|(_, line)| !line.contains("path = ")).collect()
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let entries = version_table(&manifest);
    assert!(entries.len() > 20, "the version table was not found");
    for (name, line) in entries {
        let reason = line.split_once(" # ").map_or("", |(_, reason)| reason);
        assert!(!reason.trim().is_empty(), "{name} has no reason: {line}");
    }
}

#[test]
fn every_dependency_of_the_version_table_is_used() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let packages = packages();
    let used: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| {
            [DependencyKind::Normal, DependencyKind::Dev, DependencyKind::Build]
                .map(|kind| package.dependencies(kind))
        })
        .flatten()
        .collect();
    let idle: Vec<_> =
        version_table(&manifest).into_iter().filter(|(name, _)| !used.contains(name)).collect();
    assert!(idle.is_empty(), "no crate depends on {idle:?}");
}

#[test]
fn every_crate_uses_what_it_depends_on() {
    let files = product_files();
    for package in packages() {
        let folder = package.folder().join("src");
        let own = files.iter().filter(|file| Path::new(&file.path).starts_with(&folder));
        let code: String = own.map(Source::code).collect();
        for dependency in package.dependencies(DependencyKind::Normal) {
            let is_used = package.name == TESTING || code.contains(&dependency.replace('-', "_"));
            assert!(is_used, "{} does not use {dependency}", package.name);
        }
    }
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    const INHERITED: [&str; 6] = ["version", "edition", "rust-version", "license", "repository", "publish"];
    for package in packages() {
        let (name, manifest) = (&package.name, package.manifest());
        let facts = table(&manifest, "package");
        for fact in INHERITED {
            assert!(
                facts.contains(&format!("{fact}.workspace = true").as_str()),
                "{name} sets its own {fact}"
            );
        }
        assert_eq!(table(&manifest, "lints"), ["workspace = true"], "{name} has lints of its own");
        for dependencies in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for line in table(&manifest, dependencies) {
                assert!(line.contains("workspace = true"), "{name} chooses a version by itself: {line}");
            }
        }
    }
}

#[test]
fn the_demo_only_leaves_out_optimization_of_the_tests() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let optimized = table(&manifest, "profile.dev.package");
    let demo = std::fs::read_to_string(root().join(".cargo/demo.toml")).unwrap();
    let lowered = table(&demo, "profile.dev.package");
    assert!(!lowered.is_empty());
    for line in lowered {
        let name = line.strip_suffix(".opt-level = 0").unwrap_or_else(|| panic!("{line}"));
        let is_optimized = optimized.iter().any(|line| line.starts_with(&format!("{name} = ")));
        assert!(is_optimized, "{name} is not optimized for the tests; both can share it");
    }
}

#[test]
fn no_crate_has_a_build_script() {
    for package in packages() {
        let script = package.manifest_path.with_file_name("build.rs");
        assert!(!script.exists(), "{} exists", script.display());
        assert!(!table(&package.manifest(), "package").iter().any(|line| line.starts_with("build")));
    }
}
