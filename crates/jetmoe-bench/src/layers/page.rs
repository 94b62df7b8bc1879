//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{BenchTarget, TOKENS};
use crate::goal::{Goal, Target, Unit, goals_section};
use crate::rounds::Rounds;

/// Tokens, and the goal for jetmoe's time as a multiple of the fastest client's.
const RATIOS: &[(usize, f64)] = &[(1, 0.65), (16, 0.6), (128, 0.4), (512, 0.35)];
/// The goal for the share of the read bandwidth with one token.
const SHARE: f64 = 0.85;

pub(super) fn page(rounds: &Rounds<'_>) -> Result<String> {
    let text = |field: &str| {
        rounds.raw[field].as_str().with_context(|| format!("the raw results have no {field}; measure anew"))
    };
    let limit = |field: &str| {
        let found = rounds.limit(field);
        found.with_context(|| format!("the raw results of jetmoe have no {field}; measure anew"))
    };
    let mut page = format!(
        "# One MLP layer\n\n\
         Made by `{}`: hidden size 2048, intermediate size 5632, 8 experts of which each token chooses 2, the same \
         ones for every target. Milliseconds per layer. {}; reads {:.1} GB/s and does {:.0} GFLOP/s in float32 on these \
         threads at best, measured in the same run. Each round measures every target in a process of its own; \
         numbers are medians over the rounds of the medians of each round, and [raw.json](raw.json) has all of them. \
         Several layers are computed in turn, so that weights come from memory and not from a cache. [kernels.md](../kernels.md) says \
         how it is computed.\n\n\
         ![Operations per byte of weights against operations per second](roofline.svg)\n\n",
        text("command")?,
        text("processor")?,
        limit("read_bytes_per_second")? / 1e9,
        limit("float32_operations_per_second")? / 1e9,
    );
    times(rounds, &mut page);
    page.push_str(&goals_section(&goals(rounds)));
    Ok(page)
}

fn times(rounds: &Rounds<'_>, page: &mut String) {
    let mut header = "| |".to_owned();
    for tokens in TOKENS {
        let _ = write!(header, " {tokens} token{} |", if *tokens == 1 { "" } else { "s" });
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

fn goals(rounds: &Rounds<'_>) -> Vec<Goal> {
    let goal = |what, measured, target| Goal { what, measured, target, unit: Unit::Ratio };
    let mut goals = Vec::new();
    for (tokens, target) in RATIOS {
        let fastest = rounds.fastest_client(*tokens).map_or("none".to_owned(), |(client, _)| client.name());
        let what = format!("{tokens}: time as a multiple of the fastest client's ({fastest})");
        goals.push(goal(what, rounds.ratio(*tokens), Target::AtMost(*target)));
    }
    for tokens in TOKENS {
        let what = format!("{tokens}: time of Candle's Q4K as a multiple of jetmoe's");
        goals.push(goal(what, rounds.candle_ratio(*tokens), Target::AtLeast(1.0)));
    }
    let share = rounds.of_tokens(BenchTarget::Jetmoe, 1, "/share_of_read");
    goals.push(goal("1: share of the read bandwidth".to_owned(), share, Target::AtLeast(SHARE)));
    goals
}
