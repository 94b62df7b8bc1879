//! The results, as JSON and as a table.

use jetmoe_artifact::{Precision, Profile};
use jetmoe_console::{Table, new_table};
use serde::Serialize;

use super::machine::Machine;
use super::memory::Memory;
use super::spread::Spread;

/// The form of `--format json`, documented in docs/json.md.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema_version: u32,
    pub(crate) model: String,
    pub(crate) machine: Machine,
    pub(crate) results: Vec<Measured>,
}

/// One graph in one backend.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) runtime: String,
    pub(crate) graph: String,
    pub(crate) precision: Precision,
    pub(crate) profile: Profile,
    pub(crate) load_seconds: f64,
    pub(crate) data_bytes: u64,
    pub(crate) memory: Option<Memory>,
    pub(crate) runs: Vec<Run>,
}

/// One batch size and prompt length.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) batch: usize,
    pub(crate) prompt_tokens: usize,
    pub(crate) new_tokens: usize,
    pub(crate) prefill: Prefill,
    pub(crate) decode: Decode,
}

#[derive(Debug, Serialize)]
pub(crate) struct Prefill {
    pub(crate) tokens_per_second: Spread,
    pub(crate) milliseconds: Spread,
    pub(crate) share_of_arithmetic_peak: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Decode {
    pub(crate) tokens_per_second: Spread,
    pub(crate) milliseconds_per_step: Spread,
    pub(crate) weight_bytes_per_step: f64,
    pub(crate) weight_bytes_per_token: f64,
    pub(crate) cache_bytes_per_step: f64,
    pub(crate) share_of_read_bandwidth: f64,
    pub(crate) share_of_arithmetic_peak: f64,
    pub(crate) runtime_overhead: Option<f64>,
}

impl Report {
    /// The report as text: the machine, and per graph its load time, its memory and a table of its runs.
    pub(crate) fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{}, {} threads: reads {:.1} GB/s, computes {:.1} GFLOP/s in float32\n",
            machine.processor,
            machine.threads,
            machine.read_bytes_per_second / 1e9,
            machine.operations_per_second / 1e9,
        );
        for measured in &self.results {
            text.push_str(&format!(
                "\n{}, {}: loaded in {:.2} s{}\n{}\n",
                measured.runtime,
                measured.graph,
                measured.load_seconds,
                measured.memory.map_or(String::new(), |memory| format!(
                    ", peak memory {} MiB, anonymous memory {} MiB at the end",
                    memory.peak_bytes >> 20,
                    memory.anonymous_bytes >> 20
                )),
                runs(&measured.runs)
            ));
        }
        text
    }
}

fn runs(runs: &[Run]) -> Table {
    let mut table = new_table();
    table.set_header([
        "batch",
        "prompt",
        "prefill tokens/s",
        "of arithmetic",
        "decode tokens/s",
        "ms per step",
        "weights/token",
        "cache/step",
        "of bandwidth",
        "overhead",
    ]);
    for run in runs {
        let (prefill, decode) = (&run.prefill, &run.decode);
        table.add_row([
            run.batch.to_string(),
            run.prompt_tokens.to_string(),
            spread(prefill.tokens_per_second, 1),
            percent(prefill.share_of_arithmetic_peak),
            spread(decode.tokens_per_second, 1),
            spread(decode.milliseconds_per_step, 2),
            megabytes(decode.weight_bytes_per_token),
            megabytes(decode.cache_bytes_per_step),
            percent(decode.share_of_read_bandwidth),
            decode.runtime_overhead.map_or("–".to_owned(), percent),
        ]);
    }
    table
}

/// Median and, in brackets, the quartiles.
fn spread(spread: Spread, digits: usize) -> String {
    let Spread { median, lower_quartile, upper_quartile } = spread;
    format!("{median:.digits$} ({lower_quartile:.digits$}–{upper_quartile:.digits$})")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}
