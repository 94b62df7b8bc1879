//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::plot;
use super::{BenchTarget, TOKENS};
use crate::goal::{Goal, Target, Unit, goals_section};
use crate::pages::{File, Stored};
use crate::processor::Processor;
use crate::rounds::Rounds;

/// Goals for jetmoe's time as a multiple of the fastest client's, for each of [`TOKENS`], with `avx2`.
const AVX2_RATIOS: [f64; 4] = [0.64, 0.35, 0.45, 0.50];
/// The same with the dot products of VNNI.
const VNNI_RATIOS: [f64; 4] = [0.55, 0.45, 0.65, 0.60];
/// The same with the tiles of AMX.
const AMX_RATIOS: [f64; 4] = [0.6, 0.5, 0.35, 0.30];
/// The goal for the share of the read bandwidth with one token.
const SHARE: f64 = 0.85;

/// The page and the plot of one processor.
pub(super) fn render(rounds: &Rounds<'_>) -> Result<Vec<File>> {
    Ok(vec![("roofline.svg", plot::draw(rounds)?), ("README.md", page(rounds)?)])
}

pub(super) fn page(rounds: &Rounds<'_>) -> Result<String> {
    let text = |field: &str| {
        rounds.raw[field].as_str().with_context(|| format!("the raw results have no {field}; measure anew"))
    };
    let limit = |field: &str| {
        let found = rounds.limit(field);
        found.with_context(|| format!("the raw results of jetmoe have no {field}; measure anew"))
    };
    let peaks = rounds.int8_peaks();
    let peaks: String =
        peaks.iter().map(|(isa, peak)| format!(", {:.0} GOP/s in int8 with {isa}", peak / 1e9)).collect();
    let mut page = format!(
        "# One MLP layer\n\n\
         Made by `{}`: hidden size 2048, intermediate size 5632, 8 experts of which each token chooses 2, the same \
         ones for every target. Milliseconds per layer. Processor: {}; reads {:.1} GB/s and does {:.0} GFLOP/s in \
         float32{peaks} on these threads at best, measured in the same run. Each round measures every target in a process \
         of its own; numbers are medians over the rounds of the medians of each round, and [raw.json](raw.json) has all of \
         them. Several layers are computed in turn, so that weights come from memory and not from a cache. \
         [kernels.md](../../kernels.md) says how it is computed.\n\n\
         ![Operations per byte of weights against operations per second](roofline.svg)\n\n",
        text("command")?,
        Processor::of_results(rounds.raw)?,
        limit("read_bytes_per_second")? / 1e9,
        limit("float32_operations_per_second")? / 1e9,
    );
    times(rounds, &mut page);
    page.push_str(&variants(rounds));
    page.push_str(&goals_section(&goals(rounds)));
    Ok(page)
}

/// All processors side by side.
pub(super) fn index(all: &[Stored]) -> Result<String> {
    let mut page = "# One MLP layer\n\n\
         One MLP layer of JetMoE-8B in `jetmoe-kernels` and in the kernels of other projects. `cargo xtask bench --kernels` \
         measures on the processor that it runs on and adds a page. Milliseconds of jetmoe, and of the fastest client in the \
         same run.\n\n| processor | kernels |"
        .to_owned();
    for tokens in TOKENS {
        let _ = write!(page, " {} |", count(*tokens));
    }
    let _ = writeln!(page, "\n| --- | --- |{}", " ---: |".repeat(TOKENS.len()));
    for Stored { folder, raw } in all {
        let rounds = Rounds { raw };
        let isa = rounds.isa().unwrap_or("–");
        let _ = write!(page, "| [{}]({folder}/README.md) | `{isa}` |", Processor::of_results(raw)?);
        for tokens in TOKENS {
            let jetmoe = rounds.milliseconds(BenchTarget::Jetmoe, *tokens);
            let _ = match (jetmoe, rounds.fastest_client(*tokens)) {
                (Some(jetmoe), Some((client, other))) => {
                    write!(page, " {jetmoe:.2}; {} {other:.2} |", client.name())
                }
                (Some(jetmoe), None) => write!(page, " {jetmoe:.2} |"),
                (None, _) => write!(page, " – |"),
            };
        }
        page.push('\n');
    }
    Ok(page)
}

fn count(tokens: usize) -> String {
    format!("{tokens} token{}", if tokens == 1 { "" } else { "s" })
}

fn times(rounds: &Rounds<'_>, page: &mut String) {
    let mut header = "| |".to_owned();
    for tokens in TOKENS {
        let _ = write!(header, " {} |", count(*tokens));
    }
    let _ = writeln!(page, "{header}\n| --- |{}", " ---: |".repeat(TOKENS.len()));
    for target in BenchTarget::ALL {
        let Some(description) = rounds.description(target) else { continue };
        let mut line = format!("| {description} |");
        for tokens in TOKENS {
            let _ = match rounds.milliseconds(target, *tokens) {
                Some(milliseconds) => write!(line, " {milliseconds:.2} |"),
                None => write!(line, " – |"),
            };
        }
        let _ = writeln!(page, "{line}");
    }
}

/// What was the fastest way to compute in a target that has several.
fn variants(rounds: &Rounds<'_>) -> String {
    let mut text = String::new();
    for target in BenchTarget::ALL {
        let fastest =
            |tokens: &usize| Some(format!("{} `{}`", count(*tokens), rounds.variant(target, *tokens)?));
        let fastest: Vec<String> = TOKENS.iter().filter_map(fastest).collect();
        if !fastest.is_empty() {
            let _ = writeln!(
                text,
                "\nThe fastest graph and precision of {}: {}.",
                target.name(),
                fastest.join(", ")
            );
        }
        for refused in rounds.refused(target) {
            let _ = writeln!(text, "It does not compile `{refused}` on this processor.");
        }
    }
    text
}

fn goals(rounds: &Rounds<'_>) -> Vec<Goal> {
    let goal = |what, measured, target| Goal { what, measured, target, unit: Unit::Ratio };
    let mut goals = Vec::new();
    let ratios = match rounds.isa() {
        Some("amx") => AMX_RATIOS,
        Some(isa) if isa.contains("vnni") => VNNI_RATIOS,
        _ => AVX2_RATIOS,
    };
    for (tokens, target) in TOKENS.iter().zip(ratios) {
        let fastest = rounds.fastest_client(*tokens).map_or("none".to_owned(), |(client, _)| client.name());
        let what = format!("{tokens}: time as a multiple of the fastest client's ({fastest})");
        goals.push(goal(what, rounds.ratio(*tokens), Target::AtMost(target)));
    }
    for tokens in TOKENS {
        let what = format!("{tokens}: time of Candle's Q4K as a multiple of jetmoe's");
        goals.push(goal(what, rounds.candle_ratio(*tokens), Target::AtLeast(1.0)));
    }
    let share = rounds.of_tokens(BenchTarget::Jetmoe, 1, "/share_of_read");
    goals.push(goal("1: share of the read bandwidth".to_owned(), share, Target::AtLeast(SHARE)));
    goals
}
