//! The page that shows all processors side by side.

use std::fmt::Write as _;

use anyhow::Result;
use clap::ValueEnum;

use super::BenchTarget::{self, JetmoeQ4, LlamaCpp, TransformersBf16};
use crate::pages::Stored;
use crate::processor::Processor;
use crate::rounds::Rounds;

/// Targets in columns of their own.
const TARGETS: &[BenchTarget] = &[JetmoeQ4, LlamaCpp, TransformersBf16];

pub(super) fn index(all: &[Stored]) -> Result<String> {
    let mut page = "# Benchmarks\n\n\
         Whole models of JetMoE-8B's widths in jetmoe and in other programs. `cargo xtask bench` measures two layers on the \
         processor that it runs on and adds a page; `cargo xtask bench --layers 24` measures the full size.\n\n\
         Decoding in tokens per second after 128 tokens, and a prompt of 512 tokens in tokens per second:\n\n\
         | processor | layers |"
        .to_owned();
    for target in TARGETS {
        let _ = write!(page, " {0}, decode | {0}, prompt |", target.name());
    }
    let _ = writeln!(
        page,
        " fastest other, decode |\n| --- | ---: |{} --- |",
        " ---: | ---: |".repeat(TARGETS.len())
    );
    for Stored { folder, raw } in all {
        let rounds = Rounds { raw };
        let layers = raw["layers"].as_u64().map_or_else(|| "–".to_owned(), |layers| layers.to_string());
        let _ = write!(page, "| [{}]({folder}/README.md) | {layers} |", Processor::of_results(raw)?);
        let cell = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}"));
        for target in TARGETS {
            let _ = write!(
                page,
                " {} | {} |",
                cell(decode_rate(&rounds, *target)),
                cell(prompt_rate(&rounds, *target))
            );
        }
        let others = BenchTarget::value_variants().iter().filter(|target| target.jetmoe().is_none());
        let rates = others.filter_map(|target| Some((target.name(), decode_rate(&rounds, *target)?)));
        let _ = match rates.max_by(|left, right| left.1.total_cmp(&right.1)) {
            Some((name, rate)) => writeln!(page, " {name} {rate:.1} |"),
            None => writeln!(page, " – |"),
        };
    }
    Ok(page)
}

/// Tokens per second of decoding after 128 tokens.
fn decode_rate(rounds: &Rounds<'_>, target: BenchTarget) -> Option<f64> {
    Some(1e3 / rounds.decode(target, (1, 128))?)
}

/// Tokens per second of a prompt of 512.
fn prompt_rate(rounds: &Rounds<'_>, target: BenchTarget) -> Option<f64> {
    Some(512e3 / rounds.prefill(target, (1, 512))?)
}
