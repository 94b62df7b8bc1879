//! Routings as tables.

use std::fmt::Write;

use jetmoe_console::{CellAlignment, Table, escape_line, new_table};
use jetmoe_observe::{RouterPart, Routing, RoutingComparison};

use super::Observed;

/// Most experts with a column of their own.
const MOST_COLUMNS: usize = 16;

/// What a command found. With `layers`, the experts of every token in these layers, or in all without any.
pub(super) fn text(observed: &Observed, layers: Option<&Vec<usize>>) -> String {
    match observed {
        Observed::Routing(routing) => of_routing(routing, layers),
        Observed::Comparison(comparison) => {
            let mut text = String::from("first\n");
            text.push_str(&of_routing(&comparison.first, layers));
            text.push_str("\nsecond\n");
            text.push_str(&of_routing(&comparison.second, layers));
            text.push_str(&of_comparison(comparison));
            text
        }
    }
}

fn part_name(part: RouterPart) -> &'static str {
    match part {
        RouterPart::Attention => "attention",
        RouterPart::Mlp => "mlp",
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

/// A table whose columns but the first are numbers.
fn with_numbers(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = new_table();
    table.set_header(header);
    rows.for_each(|row| {
        table.add_row(row);
    });
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn of_routing(routing: &Routing, layers: Option<&Vec<usize>>) -> String {
    let model = &routing.model;
    let all = || routing.sequences.iter().flatten();
    let tokens = all().filter(|token| !token.is_padding()).count();
    let mut text = format!(
        "{} {} in {}: {tokens} tokens, {} of {} experts each\n\n",
        model.precision, model.profile, model.backend, routing.experts_per_token, routing.experts
    );
    let is_wide = routing.experts > MOST_COLUMNS;
    let experts: Vec<String> = match is_wide {
        true => vec!["largest load %".to_owned(), "smallest".to_owned()],
        false => (0..routing.experts).map(|expert| expert.to_string()).collect(),
    };
    let first = "load % of expert".to_owned();
    let last = ["load entropy", "entropy", "smallest margin"].map(str::to_owned);
    let rows = routing.routers.iter().map(|router| {
        let shares = || router.load.iter().map(|load| load.share);
        let loads: Vec<String> = match is_wide {
            true => vec![percent(shares().fold(0.0, f64::max)), percent(shares().fold(1.0, f64::min))],
            false => shares().map(percent).collect(),
        };
        let margin = router.smallest_margin.map_or("–".to_owned(), |margin| format!("{margin:.4}"));
        let numbers =
            vec![format!("{:.3}", router.load_entropy), format!("{:.3}", router.mean_entropy), margin];
        [vec![format!("layer {} {}", router.layer, part_name(router.part))], loads, numbers].concat()
    });
    let table = with_numbers([vec![first], experts, last.to_vec()].concat(), rows);
    let loss = &routing.balance_loss;
    // writing to a string does not fail
    let _ = writeln!(
        text,
        "{table}\n\nbalance loss {:.4}, attention {:.4}, mlp {:.4}; transformers, which counts attention twice, {:.4}",
        loss.all, loss.attention, loss.mlp, loss.transformers
    );
    if let Some(layers) = layers {
        text.push_str(&of_tokens(routing, layers));
    }
    text
}

/// One row per token, one column per router.
fn of_tokens(routing: &Routing, layers: &[usize]) -> String {
    let shown: Vec<_> =
        routing.routers.iter().filter(|router| layers.is_empty() || layers.contains(&router.layer)).collect();
    let header = shown.iter().map(|router| format!("{} {}", router.layer, part_name(router.part)));
    let header: Vec<String> = std::iter::once("experts of".to_owned()).chain(header).collect();
    let mut text = String::new();
    for (sequence, tokens) in routing.sequences.iter().enumerate() {
        let rows =
            tokens.iter().enumerate().filter(|(_, token)| !token.is_padding()).map(|(column, token)| {
                let name = token.text.clone().unwrap_or_else(|| token.id.to_string());
                let choices = shown.iter().map(|router| match &router.tokens[sequence][column] {
                    Some(choice) => choice.experts.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
                    None => String::new(),
                });
                std::iter::once(escape_line(&name).into_owned()).chain(choices).collect()
            });
        let table = with_numbers(header.clone(), rows);
        let _ = writeln!(text, "\n{table}");
    }
    text
}

fn of_comparison(comparison: &RoutingComparison) -> String {
    let mut text = String::from("\nsecond against first\n\n");
    let share = |agreement: Option<f64>| agreement.map_or("–".to_owned(), percent);
    let header = ["", "moved load %", "same experts %", "changed tokens"].map(str::to_owned);
    let rows = comparison.routers.iter().map(|router| {
        vec![
            format!("layer {} {}", router.layer, part_name(router.part)),
            percent(router.load_distance),
            share(router.agreement),
            if comparison.same_tokens { router.changed.len().to_string() } else { "–".to_owned() },
        ]
    });
    let table = with_numbers(header.to_vec(), rows);
    let _ = writeln!(text, "{table}");
    match comparison.agreement {
        Some(agreement) => {
            let _ = writeln!(text, "\nthe same experts in {} % of all choices", percent(agreement));
        }
        None => text.push_str("\nother tokens: choices are not compared one by one\n"),
    }
    let changed = comparison.routers.iter().flat_map(|router| &router.changed);
    if let Some(margin) = changed.filter_map(|choice| choice.margin).max_by(f32::total_cmp) {
        let _ = writeln!(text, "the largest margin of a changed choice is {margin:.4}");
    }
    text
}
