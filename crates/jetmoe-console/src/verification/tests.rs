use jetmoe_conformance::{Greedy, TensorComparison};

use super::*;

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

fn table_text(passed: bool, colored: bool) -> String {
    let (model, expected_by) = ("artifact".to_owned(), "golden.safetensors".to_owned());
    verification_table(&VerificationReport::new(model, expected_by, vec![comparison(passed)]), colored)
}

#[test]
fn a_table_says_what_was_compared_and_what_was_not() {
    let text = table_text(true, false);
    for part in [
        "expected by golden.safetensors",
        "tract 0.23.9, onnx/model.onnx, 34 tokens",
        "present.*.key",
        "5.0e-1",
        "65 tokens identical",
        "top-1 agreement   97.50 %",
        "not compared, because the graph does not have them: last_hidden_state",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("FAILED") && !text.contains("router agreement"), "{text}");
}

#[test]
fn a_table_says_what_failed_and_where() {
    let text = table_text(false, false);
    assert_eq!(text.matches("FAILED").count(), 2, "{text}");
    assert!(text.contains("sequence 1, new token 5: 7 instead of 9"), "{text}");
    assert!(text.contains("inf"), "{text}");
}

#[test]
fn only_a_coloured_table_holds_escape_sequences() {
    assert!(!table_text(false, false).contains('\u{1b}'));
}
