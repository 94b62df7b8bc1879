use comfy_table::{Cell, Color, Table, presets};
use jetmoe_artifact::{TensorRecord, VerificationRecord};
use serde::Serialize;

use crate::Comparison;

/// Version of the JSON form of [`VerificationReport`]; fields are added without a new version, but none is removed.
pub const REPORT_SCHEMA: u32 = 1;

/// What `jetmoe verify` reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerificationReport {
    /// Version of this form.
    pub schema_version: u32,
    /// The artifact.
    pub model: String,
    /// Who says what must come out.
    pub expected_by: String,
    /// Whether every backend passed.
    pub passed: bool,
    /// One entry per backend.
    pub backends: Vec<Comparison>,
}

impl VerificationReport {
    /// Gathers comparisons with one expectation.
    pub fn new(model: String, expected_by: String, backends: Vec<Comparison>) -> Self {
        let passed = backends.iter().all(|backend| backend.passed);
        VerificationReport { schema_version: REPORT_SCHEMA, model, expected_by, passed, backends }
    }

    /// The report as text for a terminal.
    pub fn to_table(&self, colored: bool) -> String {
        let mut text = format!("{}\nexpected by {}\n", self.model, self.expected_by);
        for comparison in &self.backends {
            text.push_str(&comparison.to_table(colored));
        }
        text
    }
}

impl Comparison {
    fn to_table(&self, colored: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["tensor", "largest error", "relative", "median token", "tolerated", ""]);
        if !colored {
            table.force_no_tty();
        }
        for tensor in &self.tensors {
            table.add_row([
                Cell::new(&tensor.name),
                Cell::new(format!("{:.1e}", tensor.max_absolute_error)),
                Cell::new(format!("{:.1e}", tensor.max_relative_error)),
                Cell::new(format!("{:.1e}", tensor.median_token_error)),
                Cell::new(&tensor.tolerance),
                verdict(tensor.passed),
            ]);
        }
        if let Some(greedy) = &self.greedy {
            let what = match &greedy.first_difference {
                None => format!("{} tokens identical", greedy.tokens),
                Some(difference) => difference.clone(),
            };
            table.add_row([
                Cell::new("greedy continuation"),
                Cell::new(what),
                Cell::new(""),
                Cell::new(""),
                Cell::new(if greedy.required { "identical" } else { "any" }),
                verdict(greedy.identical || !greedy.required),
            ]);
        }
        let graph = self.graph.as_ref().map_or(String::new(), |graph| format!(", {graph}"));
        let mut text = format!("\n{}{graph}, {} tokens\n{table}\n", self.runtime, self.tokens);
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        if let Some(share) = self.top1_agreement {
            text.push_str(&format!("top-1 agreement   {}\n", percent(share)));
        }
        if let Some(share) = self.router_agreement {
            text.push_str(&format!("router agreement  {}\n", percent(share)));
        }
        if !self.not_compared.is_empty() {
            text.push_str(&format!(
                "not compared, because the graph does not have them: {}\n",
                self.not_compared.join(", ")
            ));
        }
        text
    }

    /// The comparison as it stands in a manifest.
    pub fn to_record(&self) -> VerificationRecord {
        VerificationRecord {
            backend: self.runtime.clone(),
            passed: self.passed,
            tokens: self.tokens,
            tensors: self
                .tensors
                .iter()
                .map(|tensor| TensorRecord {
                    name: tensor.name.clone(),
                    max_absolute_error: tensor.max_absolute_error,
                    max_relative_error: tensor.max_relative_error,
                })
                .collect(),
        }
    }
}

fn verdict(passed: bool) -> Cell {
    if passed { Cell::new("ok").fg(Color::Green) } else { Cell::new("FAILED").fg(Color::Red) }
}

#[cfg(test)]
mod tests {
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
    fn a_table_says_what_was_compared_and_what_was_not() {
        let text = report(vec![comparison(true)]).to_table(false);
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
        let text = report(vec![comparison(false)]).to_table(false);
        assert_eq!(text.matches("FAILED").count(), 2, "{text}");
        assert!(text.contains("sequence 1, new token 5: 7 instead of 9"), "{text}");
        assert!(text.contains("inf"), "{text}");
    }

    #[test]
    fn only_a_coloured_table_holds_escape_sequences() {
        assert!(!report(vec![comparison(false)]).to_table(false).contains('\u{1b}'));
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
}
