//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::goals::goals;
use super::{BenchTarget, SHAPES};
use crate::goal::goals_section;
use crate::rounds::Rounds;

pub(super) fn page(rounds: &Rounds<'_>) -> Result<String> {
    let machine =
        rounds.machine().context("no jetmoe target was measured, so the machine was not measured either")?;
    let command = rounds.raw["command"].as_str().context("the raw results name no command")?;
    let mut page = format!(
        "# Benchmarks\n\n\
         Made by `{command}`. {}, {:.0} GiB of memory; reads {:.1} GB/s and does {:.0} GFLOP/s in float32 on these \
         threads, as `jetmoe bench` measured in the same run. All targets run the same weights: random ones at JetMoE-8B's \
         widths. Each round measures every target in a process of its own; numbers are medians over the rounds of the \
         medians of each round, and [raw.json](raw.json) has all of them. `jetmoe-q4` and `jetmoe-bf16` are the profile \
         `native` in ONNX Runtime, `jetmoe-q4-tract` is the same file in tract, and the other two are the profile \
         `onnxruntime`. transformers and jetmoe compute the logits of a prompt's last token, the others those of all \
         tokens; `import` does not count as loading. `jetmoe` and `jetmoe-export` are built with the dev profile, which \
         optimizes the crates that compute.\n\n\
         ![Decoding](decode.svg)\n\n",
        machine.processor,
        machine.memory_bytes / f64::from(1 << 30),
        machine.read_bytes_per_second / 1e9,
        machine.operations_per_second / 1e9,
    );
    table(rounds, &mut page);
    page.push_str(&goals_section(&goals(rounds)));
    Ok(page)
}

fn table(rounds: &Rounds<'_>, page: &mut String) {
    let mut header = "| | load |".to_owned();
    for (batch, prompt) in SHAPES {
        let _ = write!(header, " prefill {batch}×{prompt} | step after it |");
    }
    let _ = writeln!(page, "{header}\n| --- |{}", " ---: |".repeat(1 + 2 * SHAPES.len()));
    for &target in BenchTarget::value_variants() {
        let Some(runtime) = rounds.runtime(target) else { continue };
        let cell = |number: Option<f64>, unit: &str| match number {
            Some(number) => format!("{number:.1} {unit}"),
            None => "–".to_owned(),
        };
        let mut line =
            format!("| {}: {runtime} | {} |", target.name(), cell(rounds.load_seconds(target), "s"));
        for shape in SHAPES {
            let (prefill, decode) = (rounds.prefill(target, *shape), rounds.decode(target, *shape));
            let _ = write!(line, " {} | {} |", cell(prefill, "ms"), cell(decode, "ms"));
        }
        let _ = writeln!(page, "{line}");
    }
}
