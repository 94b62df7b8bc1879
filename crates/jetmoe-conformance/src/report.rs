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
        table.set_header(["tensor", "largest error", "relative", "tolerated", ""]);
        if !colored {
            table.force_no_tty();
        }
        for tensor in &self.tensors {
            table.add_row([
                Cell::new(&tensor.name),
                Cell::new(format!("{:.1e}", tensor.max_absolute_error)),
                Cell::new(format!("{:.1e}", tensor.max_relative_error)),
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
                Cell::new("identical"),
                verdict(greedy.identical),
            ]);
        }
        let mut text = format!("\n{}, {} tokens\n{table}\n", self.runtime, self.tokens);
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
