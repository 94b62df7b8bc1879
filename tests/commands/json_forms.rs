//! `docs/json.md` documents every field that is printed, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jetmoe::artifact::{
    Artifact, Manifest, OptionalOutput, Precision, Profile, TensorRecord, VerificationRecord, WeightPlan,
};
use jetmoe::checkpoint::Checkpoint;
use jetmoe::export::{Calibration, ExportOptions, export, record_verification};
use jetmoe_testing::fixtures;
use serde_json::{Value, json as json_value};

use crate::context::{context_with_artifact, context_with_artifact_for, edit_config, new_context};

/// The fields that the document's section about a form names.
fn documented(form: &str) -> BTreeSet<String> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md")).unwrap();
    let heading = format!("## `{form}`\n");
    let (_, section) = document.split_once(&heading).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

/// Objects whose keys are no fields, and the manifest, which has a section of its own.
const OPAQUE: [&str; 4] = ["graphs[].opsets", "graphs[].operators", "graphs[].stored", "manifest"];

fn collect(value: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let field = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if !OPAQUE.contains(&field.as_str()) {
                    collect(value, &field, fields);
                }
                fields.insert(field);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, &format!("{path}[]"), fields)),
        _ => {}
    }
}

/// Every value carries the version, and together they have exactly the documented fields.
#[track_caller]
fn assert_documented(form: &str, values: &[Value]) {
    let mut fields = BTreeSet::new();
    for value in values {
        assert_eq!(value["schema_version"], 1, "{form}");
        collect(value, "", &mut fields);
    }
    let documented = documented(form);
    let not_documented: Vec<_> = fields.difference(&documented).collect();
    let not_printed: Vec<_> = documented.difference(&fields).collect();
    assert!(
        not_documented.is_empty() && not_printed.is_empty(),
        "{form}: docs/json.md lacks {not_documented:?}, and names {not_printed:?}, which nothing prints"
    );
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn json_of_run() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run("jetmoe run --model artifact --prompt x --max-new-tokens 2 --format json");
    assert_documented("jetmoe run", &[json(output.succeeded())]);
}

#[test]
fn json_of_classify() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let output = context.run("jetmoe classify --model artifact x y --format json");
    let mut lines: Vec<Value> = output.succeeded().lines().map(json).collect();
    assert_eq!(lines.len(), 2);
    let pairs =
        context.command("jetmoe classify --model artifact --pairs --format json").input("x\ty\n").run();
    lines.push(json(pairs.succeeded()));
    assert_documented("jetmoe classify", &lines);
}

#[test]
fn json_of_verify() {
    let context = context_with_artifact_for("tiny", None, OptionalOutput::ALL);
    let output = context.run("jetmoe verify --model artifact --checkpoint tiny --format json");
    assert_documented("jetmoe verify", &[json(output.succeeded())]);
}

#[test]
fn json_of_eval() {
    let mut values = Vec::new();
    for model in ["jetmoe-mini", "jetmoe-mini-classifier"] {
        let context = context_with_artifact(model);
        let file = fs::read_to_string(fixtures::checkpoint(model).join("eval.jsonl")).unwrap();
        fs::write(context.path("held-out.jsonl"), file.lines().next().unwrap()).unwrap();
        let output = context.run("jetmoe eval --model artifact --text held-out.jsonl --format json");
        values.push(json(output.succeeded()));
    }
    for (problem_type, label) in
        [("regression", json_value!([0.5, 1.0])), ("multi_label_classification", json_value!([0]))]
    {
        let context = context_with_artifact("jetmoe-mini-classifier");
        edit_config(&context, |config| config["problem_type"] = problem_type.into());
        let line = json_value!({ "text": "x", "text_pair": "y", "label": label }).to_string();
        fs::write(context.path("held-out.jsonl"), line).unwrap();
        let output = context.run("jetmoe eval --model artifact --text held-out.jsonl --format json");
        values.push(json(output.succeeded()));
    }
    let context = context_with_artifact_for("jetmoe-mini", None, OptionalOutput::ALL);
    fs::write(context.path("held-out.jsonl"), "{\"text\": \"In the beginning\"}").unwrap();
    let output =
        context.run("jetmoe eval --model artifact --baseline artifact --text held-out.jsonl --format json");
    values.push(json(output.succeeded()));
    assert_documented("jetmoe eval", &values);
}

#[test]
fn json_of_mask() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run("jetmoe mask --model artifact --format json \"In the beginning\" Amen");
    assert_documented("jetmoe mask", &[json(output.succeeded())]);
}

#[test]
fn json_of_routing() {
    let context = context_with_artifact("jetmoe-mini");
    let of = |options: &str| {
        let line = format!("jetmoe routing --model artifact {options} --format json");
        json(context.run(&line).succeeded())
    };
    let text = "\"In the beginning God created the heaven and the earth.\"";
    // 4-bit weights change some choices
    let exported = ExportOptions {
        precision: Precision::Q4,
        ..ExportOptions::new("jetmoe-mini", context.path("artifact"))
    };
    export(&Checkpoint::open(fixtures::checkpoint("jetmoe-mini")).unwrap(), &exported).unwrap();
    let two_texts = of(&format!("{text} Amen --compare \"The LORD is my shepherd\""));
    let two_precisions = of(&format!("{text} --compare-precision q4"));
    assert_documented("jetmoe routing", &[of(text), two_texts, two_precisions]);
}

#[test]
#[cfg(target_os = "linux")]
fn json_of_bench() {
    let context = context_with_artifact("tiny");
    let line = "jetmoe bench --model artifact --threads 1 --prompt-tokens 2 --new-tokens 1 --format json";
    assert_documented("jetmoe bench", &[json(context.run(line).succeeded())]);
}

#[test]
fn json_of_inspect() {
    let context = context_with_artifact("tiny");
    let of = |path: &str| json(context.run(&format!("jetmoe inspect {path} --format json")).succeeded());
    let [artifact, checkpoint] = [of("artifact"), of("tiny")];
    let manifest = fs::read_to_string(context.path("artifact/jetmoe.json")).unwrap();
    assert_eq!(artifact["manifest"]["graphs"], json(&manifest)["graphs"]);
    assert_documented("jetmoe inspect", &[artifact, checkpoint]);
}

#[test]
fn json_of_devices() {
    let output = new_context().run("jetmoe devices --format json");
    assert_documented("jetmoe devices", &[json(output.succeeded())]);
}

#[test]
fn json_of_the_manifest() {
    let context = context_with_artifact("jetmoe-mini");
    let folder = context.path("artifact");
    let text = fixtures::checkpoint("jetmoe-mini").join("calibration.txt");
    let options = ExportOptions {
        precision: Precision::Q4,
        profile: Profile::Native,
        weights: WeightPlan {
            overrides: vec!["int8/16:layers.0.mlp".parse().unwrap()],
            ..WeightPlan::default()
        },
        calibration: Some(Calibration { max_tokens: 64, ..Calibration::new(text) }),
        revision: Some("v1".to_owned()),
        ..ExportOptions::new("jetmoe-mini", &folder)
    };
    export(&Checkpoint::open(fixtures::checkpoint("jetmoe-mini")).unwrap(), &options).unwrap();
    let manifest = Manifest::read(&folder).unwrap();
    let tensors =
        vec![TensorRecord { name: "logits".to_owned(), max_absolute_error: 0.0, max_relative_error: 0.0 }];
    let record = VerificationRecord { backend: "ort 1.32.0".to_owned(), passed: true, tokens: 1, tensors };
    record_verification(&folder, &manifest.graphs[0], vec![record]).unwrap();
    jetmoe_testing::files::edit_json(&folder.join("config.json"), |config| config["mine"] = true.into());
    Artifact::accept_edits(&folder).unwrap();
    assert_documented("jetmoe.json", &[json(&fs::read_to_string(folder.join("jetmoe.json")).unwrap())]);
}
