use serde_json::json;

use super::*;
use crate::{Greedy, TensorComparison};

fn comparison(passed: bool) -> Comparison {
    Comparison {
        backend: "tract".to_owned(),
        runtime: "tract 0.23.9".to_owned(),
        graph: Some("onnx/model.onnx".to_owned()),
        passed,
        tokens: 34,
        tensors: vec![TensorComparison {
            name: "present.*.key".to_owned(),
            worst: "present.1.key".to_owned(),
            max_absolute_error: if passed { 0.5 } else { f64::INFINITY },
            max_relative_error: 0.25,
            median_token_error: 0.125,
            tolerance: "2e-5 of the largest value".to_owned(),
            passed,
        }],
        top1_agreement: Some(0.975),
        router_agreement: None,
        greedy: Some(Greedy {
            identical: passed,
            required: true,
            tokens: 65,
            first_difference: (!passed).then(|| "sequence 1, new token 5: 7 instead of 9".to_owned()),
        }),
        not_compared: vec!["last_hidden_state".to_owned()],
    }
}

fn report(backends: Vec<Comparison>) -> VerificationReport {
    VerificationReport::new("artifact".to_owned(), "golden.safetensors".to_owned(), backends)
}

#[test]
fn a_report_passes_if_every_backend_does() {
    assert!(report(vec![comparison(true), comparison(true)]).passed);
    assert!(!report(vec![comparison(true), comparison(false)]).passed);
}

#[test]
fn the_json_form_is_stable() {
    let json = serde_json::to_value(report(vec![comparison(true)])).unwrap();
    assert_eq!(
        json,
        json!({
            "schema_version": 1,
            "model": "artifact",
            "expected_by": "golden.safetensors",
            "passed": true,
            "backends": [{
                "backend": "tract",
                "runtime": "tract 0.23.9",
                "graph": "onnx/model.onnx",
                "passed": true,
                "tokens": 34,
                "tensors": [{
                    "name": "present.*.key",
                    "worst": "present.1.key",
                    "max_absolute_error": 0.5,
                    "max_relative_error": 0.25,
                    "median_token_error": 0.125,
                    "tolerance": "2e-5 of the largest value",
                    "passed": true,
                }],
                "top1_agreement": 0.975,
                "router_agreement": null,
                "greedy": {"identical": true, "required": true, "tokens": 65, "first_difference": null},
                "not_compared": ["last_hidden_state"],
            }],
        })
    );
}

#[test]
fn an_infinite_error_is_null_in_json_which_has_no_infinity() {
    let json = serde_json::to_value(comparison(false)).unwrap();
    assert_eq!(json["tensors"][0]["max_absolute_error"], json!(null));
    assert_eq!(json["tensors"][0]["passed"], json!(false));
}

#[test]
fn a_record_for_the_manifest_keeps_the_errors() {
    let record = comparison(true).to_record();
    assert_eq!((record.backend.as_str(), record.passed, record.tokens), ("tract 0.23.9", true, 34));
    assert_eq!(record.tensors[0].name, "present.*.key");
    assert_eq!(record.tensors[0].max_absolute_error, 0.5);
    assert_eq!(record.tensors[0].max_relative_error, 0.25);
}
