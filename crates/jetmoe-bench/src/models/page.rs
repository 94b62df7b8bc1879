//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::goals::goals;
use super::{BenchTarget, FULL_SIZE, SHAPES, plot};
use crate::goal::goals_section;
use crate::pages::File;
use crate::processor::Processor;
use crate::rounds::Rounds;

/// The page and the plot of one set of results.
pub(super) fn render(rounds: &Rounds<'_>) -> Result<Vec<File>> {
    Ok(vec![("decode.svg", plot::draw(rounds)?), ("README.md", page(rounds)?)])
}

pub(super) fn page(rounds: &Rounds<'_>) -> Result<String> {
    let machine =
        rounds.machine().context("no jetmoe target was measured, so the machine was not measured either")?;
    let command = rounds.raw["command"].as_str().context("the raw results name no command")?;
    let layers = rounds.raw["layers"].as_u64().context("the raw results name no number of layers")?;
    let title = if layers == u64::from(FULL_SIZE) { "Benchmarks, full size" } else { "Benchmarks" };
    let mut page = format!(
        "# {title}\n\n\
         Made by `{command}`: {layers} layers. Processor: {}; {:.0} GiB of memory; reads {:.1} GB/s and does {:.0} GFLOP/s \
         in float32 on these threads, as `jetmoe bench` measured in the same run. All targets run the same \
         weights, random ones at JetMoE-8B's widths. Each round measures every target in a process of its \
         own; numbers are medians over the rounds of the medians of each round, and [raw.json](raw.json) has all of them. \
         `jetmoe-q4` and `jetmoe-bf16` are the profile `native` in ONNX Runtime, `jetmoe-q4-tract` is the same file in \
         tract, and the other two are the profile `onnxruntime`. transformers, llama.cpp and jetmoe compute the logits of a \
         prompt's last token, the others those of all tokens; `import` does not count as loading. `jetmoe` and \
         `jetmoe-export` are built with the dev profile, which optimizes the crates that compute.\n\n",
        Processor::of_results(rounds.raw)?,
        machine.memory_bytes / f64::from(1 << 30),
        machine.read_bytes_per_second / 1e9,
        machine.operations_per_second / 1e9,
    );
    if rounds.runtime(BenchTarget::LlamaCpp).is_some() {
        page.push_str(
            "`llama-cpp` runs other weights: a Mixtral of the same active widths, where 32 query and 16 key heads of 128 stand for the mixture of \
             attention heads, whose two selected experts have 16 query heads each. Its layers are Q4_0, its tied embedding \
             Q6_K, as llama.cpp's own quantization stores them, and its cache is float16. Loading includes the conversion \
             of weights to the layout of the processor.\n\n",
        );
    }
    if rounds.runtime(BenchTarget::OnnxruntimeGenai).is_some() {
        page.push_str(
            "`onnxruntime-genai` runs the graph of `jetmoe-q4-onnxruntime`; its steps include the choice of the most \
             probable token.\n\n",
        );
    }
    page.push_str("![Decoding](decode.svg)\n\n");
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
        let mut line = format!("| {}: {runtime} |", target.name());
        let _ = match rounds.load_seconds(target) {
            Some(seconds) => write!(line, " {seconds:.2} s |"),
            None => write!(line, " – |"),
        };
        for shape in SHAPES {
            let (prefill, decode) = (rounds.prefill(target, *shape), rounds.decode(target, *shape));
            let _ = write!(line, " {} | {} |", cell(prefill, "ms"), cell(decode, "ms"));
        }
        let _ = writeln!(page, "{line}");
    }
}
