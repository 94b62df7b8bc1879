//! The source files: every name is spelled once, files stay small, and no public item names a type of an external crate.

use std::collections::BTreeSet;
use std::path::Path;

use crate::workspace::{Source, TESTING, packages, product_files, rust_files, source_files};

const CHECKPOINT_NAMES: &str = "crates/jetmoe-checkpoint/src/names.rs";
const ARTIFACT_NAMES: &str = "crates/jetmoe-artifact/src/names.rs";

/// Names of files, tensors, inputs and outputs, each with the one file whose code spells it.
const SPELLED_IN: &[(&str, &str)] = &[
    ("model.layers.", CHECKPOINT_NAMES),
    ("model.embed_tokens", CHECKPOINT_NAMES),
    ("model.norm.weight", CHECKPOINT_NAMES),
    ("lm_head.weight", CHECKPOINT_NAMES),
    ("score.weight", CHECKPOINT_NAMES),
    ("self_attention.experts", CHECKPOINT_NAMES),
    ("model.safetensors", CHECKPOINT_NAMES),
    ("\"tokenizer.json\"", CHECKPOINT_NAMES),
    ("\"tokenizer_config.json\"", CHECKPOINT_NAMES),
    ("\"generation_config.json\"", CHECKPOINT_NAMES),
    ("past_key_values", ARTIFACT_NAMES),
    ("present.{", ARTIFACT_NAMES),
    ("hidden_states.{", ARTIFACT_NAMES),
    ("attn_router_logits.{", ARTIFACT_NAMES),
    ("mlp_router_logits.{", ARTIFACT_NAMES),
    ("past_sequence_length\"", ARTIFACT_NAMES),
    ("\"jetmoe.json\"", ARTIFACT_NAMES),
    ("\"genai_config.json\"", ARTIFACT_NAMES),
    ("}_data\"", ARTIFACT_NAMES),
];

#[test]
fn a_name_is_spelled_once() {
    let files = product_files();
    for (spelling, spelled_in) in SPELLED_IN {
        let spelled = files.iter().filter(|file| file.code().contains(spelling));
        let spelled: BTreeSet<&str> = spelled.map(|file| file.path.as_str()).collect();
        assert_eq!(spelled, BTreeSet::from([*spelled_in]), "where {spelling} is spelled");
    }
}

/// Over about 400 lines a file probably holds two things; the rest is slack, so that no line is shaved.
const MOST_LINES: usize = 450;

#[test]
fn files_stay_small() {
    let files = ["crates", "src", "tests", "examples"].into_iter().flat_map(rust_files);
    let long = files.map(|file| (file.text.lines().count(), file.path));
    let long: Vec<_> = long.filter(|(lines, _)| *lines > MOST_LINES).collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines; what is the second thing in them? {long:?}");
}

/// How a weight is stored is decided in `jetmoe-format`. Elsewhere only these files tell formats apart, so that a new one
/// touches few: which precision stores which, what calibration is worth its time, and which kernel reads it.
const FORMATS_TOLD_APART_IN: &[&str] = &[
    "crates/jetmoe-artifact/src/kind.rs",
    "crates/jetmoe-export/src/calibrated.rs",
    "crates/jetmoe-kernels/src/matmul.rs",
];

#[test]
fn few_files_tell_weight_formats_apart() {
    const VARIANTS: [&str; 5] = ["F32", "F16", "Bf16", "Int8", "Int4"];
    let files = product_files();
    let outside = files.iter().filter(|file| !file.path.starts_with("crates/jetmoe-format/"));
    let tells = |file: &&Source| {
        let code = file.code();
        VARIANTS.iter().any(|variant| code.contains(&format!("WeightFormat::{variant}")))
    };
    let found: BTreeSet<&str> = outside.filter(tells).map(|file| file.path.as_str()).collect();
    assert_eq!(found, FORMATS_TOLD_APART_IN.iter().copied().collect());
    assert!(found.len() <= 3);
}

#[test]
fn graph_and_reference_have_the_same_modules() {
    let has = |folder: &str, module: &str| {
        rust_files(folder).iter().any(|file| file.path == format!("{folder}/{module}.rs"))
    };
    for module in ["attention", "experts", "head", "mask", "norm", "rotary", "router"] {
        for folder in ["crates/jetmoe-graph/src/model", "crates/jetmoe-reference/src"] {
            assert!(has(folder, module), "{folder} has no {module}.rs");
        }
    }
}

/// Crates of the backends, with the paths into the engines that only their code may spell.
const ENGINES: [(&str, &[&str]); 3] = [
    ("jetmoe-backend-ort", &["ort::", "ort_sys::", "libloading::"]),
    ("jetmoe-backend-tract", &["tract_"]),
    ("jetmoe-backend-rten", &["rten::", "rten_tensor::"]),
];

/// The files of those crates with public functions, whose signatures name no such type.
const PUBLIC: [&str; 2] =
    ["crates/jetmoe-backend-ort/src/library.rs", "crates/jetmoe-backend-ort/src/probe.rs"];

/// No other crate names a type of an engine, and a backend's crate does so only in files whose items are private to it.
/// What remains is a trait implementation for a public type, so there is none from or into a type of an engine.
#[test]
fn no_public_item_names_a_type_of_an_engine() {
    for file in product_files() {
        let code = file.code();
        for (owner, paths) in ENGINES {
            let names = |line: &&str| paths.iter().any(|path| spells(line, path));
            if !file.path.starts_with(&format!("crates/{owner}/")) {
                assert_eq!(code.lines().find(names), None, "{} names an engine", file.path);
                continue;
            }
            let is_public = |line: &&str| line.trim_start().starts_with("pub ");
            if code.lines().any(|line| names(&line)) && !PUBLIC.contains(&file.path.as_str()) {
                assert_eq!(code.lines().find(is_public), None, "{} is public", file.path);
            }
            let converts =
                |line: &&str| line.starts_with("impl") && (line.contains("From<") || line.contains("Into<"));
            assert_eq!(code.lines().find(converts), None, "{} converts to or from such a type", file.path);
        }
    }
}

/// Whether a line spells a path at the beginning of a word.
fn spells(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(place, _)| {
        !line[..place].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':')
    })
}

/// onnxruntime reads the variable that disables its telemetry when it is imported.
#[test]
fn python_disables_telemetry_before_it_imports_onnxruntime() {
    let files = ["crates", "tests"].into_iter().flat_map(|folder| source_files(folder, "py"));
    let imports: Vec<_> = files.filter(|file| file.text.contains("import onnxruntime")).collect();
    assert!(imports.len() >= 6, "the Python files are not found");
    for Source { path, text } in imports {
        let before = text.split("import onnxruntime").next().unwrap();
        let disables = ["import telemetry", "environ.setdefault(\"ORT_DISABLE_TELEMETRY\", \"1\")"];
        assert!(disables.iter().any(|line| before.contains(line)), "{path}");
    }
}

#[test]
fn unsafe_code_is_in_twenty_five_files() {
    let files = product_files();
    let holds = files.iter().filter(|file| file.code().contains("unsafe {"));
    let holds: BTreeSet<&str> = holds.map(|file| file.path.as_str()).collect();
    let expected = [
        "crates/jetmoe-checkpoint/src/mapped_file.rs",
        "crates/jetmoe-kernels/src/aligned.rs",
        "crates/jetmoe-kernels/src/isa.rs",
        "crates/jetmoe-kernels/src/simd.rs",
        "crates/jetmoe-kernels/src/simd/avx2.rs",
        "crates/jetmoe-kernels/src/simd/avx512.rs",
        "crates/jetmoe-kernels/src/simd/neon.rs",
        "crates/jetmoe-kernels/src/matmul.rs",
        "crates/jetmoe-kernels/src/matmul/amx.rs",
        "crates/jetmoe-kernels/src/matmul/amx/dequantize.rs",
        "crates/jetmoe-kernels/src/matmul/amx/tiles.rs",
        "crates/jetmoe-kernels/src/matmul/avx2.rs",
        "crates/jetmoe-kernels/src/matmul/avx512vnni.rs",
        "crates/jetmoe-kernels/src/matmul/avxvnni.rs",
        "crates/jetmoe-kernels/src/matmul/neon.rs",
        "crates/jetmoe-kernels/src/matmul/neoni8mm.rs",
        "crates/jetmoe-kernels/src/roofline/int8.rs",
        "crates/jetmoe-backend-ort/src/library/open.rs",
        "crates/jetmoe-backend-ort/src/library/telemetry.rs",
        "crates/jetmoe-backend/src/allocator.rs",
        "crates/jetmoe-backend/src/prefetch/linux.rs",
        "crates/jetmoe-backend-ort/src/pages.rs",
        "crates/jetmoe-backend-tract/src/graph.rs",
        "crates/jetmoe-backend-rten/src/graph.rs",
        "crates/jetmoe-console/src/bus_error.rs",
    ];
    assert_eq!(holds, BTreeSet::from(expected));
}

#[test]
fn an_example_needs_no_workspace_crate_but_the_runtime() {
    for example in rust_files("examples") {
        let text = example.text.replace("jetmoe_rt::", "");
        assert!(!text.contains("jetmoe_") && !text.contains("jetmoe::"), "{}", example.path);
    }
}

#[test]
fn every_library_has_one_error_that_may_grow() {
    let files = product_files();
    // console, bench and fuzz are code of programs, which use anyhow; a backend returns the error of the trait it implements
    let is_library = |name: &str| {
        name.starts_with("jetmoe-")
            && !name.starts_with("jetmoe-backend-")
            && ![TESTING, "jetmoe-console", "jetmoe-bench", "jetmoe-fuzz"].contains(&name)
    };
    for package in packages().iter().filter(|package| is_library(&package.name)) {
        let path = format!("crates/{}/src/error.rs", package.name);
        let file = files.iter().find(|file| Path::new(&file.path) == Path::new(&path));
        let code = file.unwrap_or_else(|| panic!("{path} does not exist")).code();
        let error = "thiserror::Error)]\n#[non_exhaustive]\npub enum Error {";
        assert!(code.contains(error), "{path} holds no `{error}`");
    }
}
