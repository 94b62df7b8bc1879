//! The table of a verification.

use comfy_table::{Cell, Color};
use jetmoe_conformance::{Comparison, VerificationReport};

use crate::{escape_line, new_table};

/// A verification as text: one table per backend.
pub fn verification_table(report: &VerificationReport, colored: bool) -> String {
    let tables = report.backends.iter().map(|comparison| comparison_table(comparison, colored));
    let (model, expected_by) = (escape_line(&report.model), escape_line(&report.expected_by));
    format!("{model}\nexpected by {expected_by}\n{}", tables.collect::<String>())
}

fn comparison_table(comparison: &Comparison, colored: bool) -> String {
    let mut table = new_table();
    table.set_header(["tensor", "largest error", "relative", "median token", "tolerated", ""]);
    if !colored {
        table.force_no_tty();
    }
    for tensor in &comparison.tensors {
        table.add_row([
            Cell::new(&tensor.name),
            Cell::new(format!("{:.1e}", tensor.max_absolute_error)),
            Cell::new(format!("{:.1e}", tensor.max_relative_error)),
            Cell::new(format!("{:.1e}", tensor.median_token_error)),
            Cell::new(&tensor.tolerance),
            verdict(tensor.passed),
        ]);
    }
    if let Some(greedy) = &comparison.greedy {
        let identical = || format!("{} tokens identical", greedy.tokens);
        table.add_row([
            Cell::new("greedy continuation"),
            Cell::new(greedy.first_difference.clone().unwrap_or_else(identical)),
            Cell::new(""),
            Cell::new(""),
            Cell::new(if greedy.required { "identical" } else { "any" }),
            verdict(greedy.identical || !greedy.required),
        ]);
    }
    let graph = comparison.graph.as_ref().map_or(String::new(), |graph| format!(", {graph}"));
    let mut text = format!("\n{}{graph}, {} tokens\n{table}\n", comparison.runtime, comparison.tokens);
    for (title, share) in
        [("top-1 agreement ", comparison.top1_agreement), ("router agreement", comparison.router_agreement)]
    {
        if let Some(share) = share {
            text.push_str(&format!("{title}  {:.2} %\n", share * 100.0));
        }
    }
    if !comparison.not_compared.is_empty() {
        text.push_str(&format!(
            "not compared, because the graph does not have them: {}\n",
            escape_line(&comparison.not_compared.join(", "))
        ));
    }
    text
}

fn verdict(passed: bool) -> Cell {
    if passed { Cell::new("ok").fg(Color::Green) } else { Cell::new("FAILED").fg(Color::Red) }
}

#[cfg(test)]
mod tests;
