//! Which crate may depend on which.

use std::collections::BTreeSet;

use crate::workspace::{DependencyKind, Package, TESTING, cargo, packages};

/// Every crate of the workspace with the workspace crates that it depends on, lowest layer first.
const WORKSPACE_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("jetmoe-checkpoint", &[]),
    ("jetmoe-hub", &["jetmoe-checkpoint", "jetmoe-artifact"]),
    ("jetmoe-text", &["jetmoe-checkpoint"]),
    ("jetmoe-format", &[]),
    ("jetmoe-artifact", &["jetmoe-checkpoint", "jetmoe-format"]),
    ("jetmoe-onnx", &["jetmoe-checkpoint", "jetmoe-format", "jetmoe-artifact"]),
    ("jetmoe-quantize", &["jetmoe-format"]),
    ("jetmoe-kernels", &["jetmoe-format"]),
    (
        "jetmoe-graph",
        &[
            "jetmoe-checkpoint",
            "jetmoe-format",
            "jetmoe-artifact",
            "jetmoe-onnx",
            "jetmoe-quantize",
            "jetmoe-kernels",
        ],
    ),
    ("jetmoe-backend", &["jetmoe-checkpoint", "jetmoe-format", "jetmoe-artifact", "jetmoe-kernels"]),
    (
        "jetmoe-backend-ort",
        &["jetmoe-format", "jetmoe-artifact", "jetmoe-onnx", "jetmoe-kernels", "jetmoe-backend"],
    ),
    (
        "jetmoe-backend-tract",
        &["jetmoe-checkpoint", "jetmoe-format", "jetmoe-artifact", "jetmoe-kernels", "jetmoe-backend"],
    ),
    ("jetmoe-backend-rten", &["jetmoe-checkpoint", "jetmoe-artifact", "jetmoe-onnx", "jetmoe-backend"]),
    (
        "jetmoe-rt",
        &[
            "jetmoe-checkpoint",
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-onnx",
            "jetmoe-backend",
            "jetmoe-backend-ort",
            "jetmoe-backend-tract",
            "jetmoe-backend-rten",
        ],
    ),
    ("jetmoe-observe", &["jetmoe-artifact", "jetmoe-rt"]),
    ("jetmoe-serve", &["jetmoe-rt"]),
    ("jetmoe-reference", &["jetmoe-checkpoint"]),
    (
        "jetmoe-conformance",
        &[
            "jetmoe-checkpoint",
            "jetmoe-format",
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-onnx",
            "jetmoe-rt",
            "jetmoe-reference",
        ],
    ),
    ("jetmoe-console", &["jetmoe-hub", "jetmoe-artifact", "jetmoe-graph", "jetmoe-rt", "jetmoe-conformance"]),
    ("jetmoe-view", &["jetmoe-observe", "jetmoe-console"]),
    (
        "jetmoe-export",
        &[
            "jetmoe-checkpoint",
            "jetmoe-hub",
            "jetmoe-format",
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-quantize",
            "jetmoe-graph",
            "jetmoe-rt",
            "jetmoe-reference",
            "jetmoe-conformance",
            "jetmoe-console",
        ],
    ),
    (
        "jetmoe",
        &[
            "jetmoe-checkpoint",
            "jetmoe-hub",
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-kernels",
            "jetmoe-observe",
            "jetmoe-onnx",
            "jetmoe-graph",
            "jetmoe-rt",
            "jetmoe-reference",
            "jetmoe-conformance",
            "jetmoe-console",
            "jetmoe-view",
            "jetmoe-serve",
            "jetmoe-export",
        ],
    ),
    ("jetmoe-bench", &[]),
    ("jetmoe-fuzz", &["jetmoe-checkpoint", "jetmoe-artifact", "jetmoe-onnx"]),
    ("xtask", &[]),
    (TESTING, &[]),
];

/// External crates that only these workspace crates may depend on.
const ALLOWED_DEPENDENTS: &[(&str, &[&str])] = &[
    ("ort", &["jetmoe-backend-ort"]),
    ("libloading", &["jetmoe-backend-ort"]),
    ("nvml-wrapper", &["jetmoe-backend-ort"]),
    ("tract-linalg", &["jetmoe-backend-tract"]),
    ("tract-onnx", &["jetmoe-backend-tract"]),
    ("rten", &["jetmoe-backend-rten"]),
    ("rten-tensor", &["jetmoe-backend-rten"]),
    ("candle-core", &["jetmoe-reference", "jetmoe-conformance"]),
    ("candle-nn", &["jetmoe-reference"]),
    ("prost", &["jetmoe-onnx"]),
    ("faer", &["jetmoe-quantize"]),
    ("tokenizers", &["jetmoe-text"]),
    ("minijinja", &["jetmoe-text"]),
    ("memmap2", &["jetmoe-checkpoint"]),
    ("hf-hub", &["jetmoe-hub"]),
    ("reqwest", &["jetmoe-hub"]),
    ("tokio", &["jetmoe-hub", "jetmoe-serve", "jetmoe-testing"]),
    ("anyhow", &["jetmoe", "jetmoe-bench", "jetmoe-console", "jetmoe-export", "jetmoe-fuzz", "xtask"]),
    ("clap", &["jetmoe", "jetmoe-bench", "jetmoe-export", "jetmoe-fuzz", "xtask"]),
    ("comfy-table", &["jetmoe-console"]),
    ("plotters", &["jetmoe-bench", "jetmoe-view"]),
    ("resvg", &["jetmoe-view"]),
    ("ctrlc", &["jetmoe-console"]),
    ("tracing-subscriber", &["jetmoe-console", "jetmoe-testing"]),
];

/// What the tests of a crate may depend on beyond its row: they export what they serve, and compare with the checkpoint.
const OF_TESTS_ALONE: &[(&str, &[&str])] = &[("jetmoe-serve", &["jetmoe-checkpoint", "jetmoe-export"])];

#[test]
fn every_crate_depends_on_the_workspace_crates_of_its_row_alone() {
    let packages = packages();
    let workspace: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let rows: BTreeSet<&str> = WORKSPACE_DEPENDENCIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(workspace, rows, "the crates of the workspace, and the rows of the table");
    for package in &packages {
        let (_, row) = WORKSPACE_DEPENDENCIES.iter().find(|(name, _)| *name == package.name).unwrap();
        let row: BTreeSet<&str> = row.iter().copied().collect();
        let dependencies =
            |kind| package.dependencies(kind).intersection(&workspace).copied().collect::<BTreeSet<_>>();
        assert_eq!(dependencies(DependencyKind::Normal), row, "what {} depends on", package.name);
        let mut of_tests = dependencies(DependencyKind::Dev);
        of_tests.remove(TESTING);
        let further =
            OF_TESTS_ALONE.iter().find(|(name, _)| *name == package.name).map_or(&[][..], |(_, it)| *it);
        let of_tests_alone: Vec<_> = of_tests.difference(&row).filter(|it| !further.contains(it)).collect();
        assert!(of_tests_alone.is_empty(), "the tests of {} depend on {of_tests_alone:?} too", package.name);
    }
}

#[test]
fn an_external_crate_has_only_its_allowed_dependents() {
    let packages = packages();
    for (external, allowed) in ALLOWED_DEPENDENTS {
        let depends = |package: &&Package| package.dependencies(DependencyKind::Normal).contains(external);
        let dependents = packages.iter().filter(depends).map(|package| package.name.as_str());
        assert_eq!(
            dependents.collect::<BTreeSet<_>>(),
            allowed.iter().copied().collect(),
            "what depends on {external}"
        );
    }
}

/// The crates that a program gets when it depends on `package`.
fn dependency_tree(package: &str, features: &[&str]) -> BTreeSet<String> {
    let tree = ["tree", "--package", package, "--edges", "normal", "--prefix", "none"];
    let lines = cargo(&[&tree, features].concat());
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_program_that_embeds_the_runtime_gets_no_exporter_no_reference_and_no_download() {
    let embedded = dependency_tree("jetmoe-rt", &[]);
    for needed in ["jetmoe-artifact", "jetmoe-checkpoint", "ort", "tract-onnx"] {
        assert!(embedded.contains(needed), "{needed} is not in {embedded:?}");
    }
    for above in
        ["jetmoe-graph", "jetmoe-hub", "jetmoe-reference", "jetmoe-conformance", "candle-core", "clap"]
    {
        assert!(!embedded.contains(above), "jetmoe-rt brings {above}");
    }
    for download in ["hf-hub", "tokio", "reqwest", "rustls", "aws-lc-rs", "indicatif"] {
        assert!(!embedded.contains(download), "jetmoe-rt brings {download}");
    }
}

#[test]
fn an_artifact_is_read_without_a_tokenizer() {
    let brought = dependency_tree("jetmoe-artifact", &[]);
    for text in ["jetmoe-text", "tokenizers", "minijinja"] {
        assert!(!brought.contains(text), "jetmoe-artifact brings {text}");
    }
}

#[test]
fn a_backend_that_is_switched_off_is_not_built() {
    let alone = |feature| dependency_tree("jetmoe-rt", &["--no-default-features", "--features", feature]);
    assert!(!alone("tract").contains("ort") && !alone("ort").contains("tract-onnx"));
    let neither = dependency_tree("jetmoe-rt", &["--no-default-features"]);
    for backend in ["ort", "libloading", "tract-onnx", "tract-core", "rten"] {
        assert!(!neither.contains(backend), "{backend} is built without its feature");
    }
}

/// Name, version and features of every crate that a build of the commands needs. One that is built for the target and for
/// build scripts has a line for each.
fn built_crates(features: &[&str]) -> BTreeSet<String> {
    let tree = [
        "tree",
        "--workspace",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p} {f}",
    ];
    let lines = cargo(&[&tree, features].concat());
    // a path follows the version of a crate of the workspace
    lines.lines().filter(|line| !line.contains(" (/")).map(str::to_owned).collect()
}

#[test]
fn the_demo_leaves_no_dependency_to_build_again() {
    let (all, demo) = (built_crates(&[]), built_crates(&["--no-default-features", "--features", "demo"]));
    assert!(all.len() > demo.len() + 50, "the demo builds the download too");
    let other: Vec<_> = demo.difference(&all).collect();
    assert!(
        other.is_empty(),
        "the download enables other features of these; jetmoe-testing's Cargo.toml says how to enable them in every \
         build: {other:#?}"
    );
}
