//! Who may depend on whom.

use std::collections::BTreeSet;

use crate::workspace::{Need, cargo, packages};

/// Every crate of the house with the others that it sees, lowest layer first.
const SEES: &[(&str, &[&str])] = &[
    ("jetmoe-checkpoint", &[]),
    ("jetmoe-text", &["jetmoe-checkpoint"]),
    ("jetmoe-format", &[]),
    ("jetmoe-artifact", &["jetmoe-checkpoint", "jetmoe-format"]),
    ("jetmoe-quantize", &["jetmoe-format"]),
    ("jetmoe-kernels", &[]),
    (
        "jetmoe-graph",
        &["jetmoe-checkpoint", "jetmoe-format", "jetmoe-artifact", "jetmoe-quantize", "jetmoe-kernels"],
    ),
    ("jetmoe-rt", &["jetmoe-checkpoint", "jetmoe-text", "jetmoe-artifact", "jetmoe-kernels"]),
    ("jetmoe-reference", &["jetmoe-checkpoint"]),
    (
        "jetmoe-conformance",
        &[
            "jetmoe-checkpoint",
            "jetmoe-format",
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-graph",
            "jetmoe-rt",
            "jetmoe-reference",
        ],
    ),
    (
        "jetmoe-console",
        &[
            "jetmoe-checkpoint",
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-graph",
            "jetmoe-rt",
            "jetmoe-conformance",
        ],
    ),
    (
        "jetmoe-export",
        &[
            "jetmoe-checkpoint",
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
            "jetmoe-text",
            "jetmoe-artifact",
            "jetmoe-kernels",
            "jetmoe-graph",
            "jetmoe-rt",
            "jetmoe-reference",
            "jetmoe-conformance",
            "jetmoe-console",
            "jetmoe-export",
        ],
    ),
    ("xtask", &[]),
];

/// Crates from outside that have a home: nothing but the crates named here may depend on them.
const HOMES: &[(&str, &[&str])] = &[
    ("ort", &["jetmoe-rt"]),
    ("libloading", &["jetmoe-rt"]),
    ("tract-linalg", &["jetmoe-rt"]),
    ("tract-onnx", &["jetmoe-rt"]),
    ("candle-core", &["jetmoe-reference", "jetmoe-conformance"]),
    ("candle-nn", &["jetmoe-reference"]),
    ("prost", &["jetmoe-graph"]),
    ("faer", &["jetmoe-quantize"]),
    ("tokenizers", &["jetmoe-text"]),
    ("minijinja", &["jetmoe-text"]),
    ("memmap2", &["jetmoe-checkpoint"]),
    ("hf-hub", &["jetmoe-checkpoint"]),
    ("anyhow", &["jetmoe", "jetmoe-console", "jetmoe-export", "xtask"]),
    ("clap", &["jetmoe", "jetmoe-export", "xtask"]),
    ("comfy-table", &["jetmoe-console"]),
    ("ctrlc", &["jetmoe-console"]),
    ("tracing-subscriber", &["jetmoe-console"]),
];

#[test]
fn every_crate_sees_the_crates_of_its_row_and_no_other() {
    let packages = packages();
    let house: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let rows: BTreeSet<&str> = SEES.iter().map(|(name, _)| *name).collect();
    assert_eq!(house, rows, "the crates of the workspace, and the rows of the table");
    for package in &packages {
        let (_, row) = SEES.iter().find(|(name, _)| *name == package.name).unwrap();
        let row: BTreeSet<&str> = row.iter().copied().collect();
        let seen = |need| package.dependencies(need).intersection(&house).copied().collect::<BTreeSet<_>>();
        assert_eq!(seen(Need::Code), row, "what {} sees", package.name);
        let tests_alone: Vec<_> = seen(Need::Tests).difference(&row).copied().collect();
        assert!(tests_alone.is_empty(), "the tests of {} see {tests_alone:?} too", package.name);
    }
}

#[test]
fn a_crate_from_outside_stays_in_its_home() {
    let packages = packages();
    for (guest, homes) in HOMES {
        let hosts = packages.iter().filter(|package| package.dependencies(Need::Code).contains(guest));
        let hosts: BTreeSet<&str> = hosts.map(|package| package.name.as_str()).collect();
        assert_eq!(hosts, homes.iter().copied().collect(), "who depends on {guest}");
    }
}

/// The crates that a program gets when it depends on `package`.
fn dependency_tree(package: &str, features: &[&str]) -> BTreeSet<String> {
    let tree = ["tree", "--package", package, "--edges", "normal", "--prefix", "none"];
    let lines = cargo(&[&tree, features].concat());
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn who_embeds_the_runtime_gets_no_exporter_no_reference_and_no_download() {
    let embedded = dependency_tree("jetmoe-rt", &[]);
    for needed in ["jetmoe-artifact", "jetmoe-checkpoint", "ort", "tract-onnx"] {
        assert!(embedded.contains(needed), "{needed} is not in {embedded:?}");
    }
    for above in ["jetmoe-graph", "jetmoe-reference", "jetmoe-conformance", "candle-core", "clap"] {
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
    for backend in ["ort", "libloading", "tract-onnx", "tract-core"] {
        assert!(!neither.contains(backend), "{backend} is built without being asked for");
    }
}
