//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::results::Results;
use super::{Contender, TOKENS};

/// Tokens, and our time as a multiple of the best peer's that is to be reached.
const RATIOS: &[(usize, f64)] = &[(1, 0.65), (16, 0.6), (128, 0.4), (512, 0.35)];
/// The share of the read bandwidth that is to be reached with one token.
const SHARE: f64 = 0.85;

pub(super) fn page(results: &Results<'_>) -> Result<String> {
    let text = |field: &str| {
        results.raw[field].as_str().with_context(|| format!("the raw results have no {field}; measure anew"))
    };
    let limit = |field: &str| {
        let found = results.limit(field);
        found.with_context(|| format!("the raw results of jetmoe have no {field}; measure anew"))
    };
    let mut page = format!(
        "# One MLP layer\n\n\
         Made by `{}`: hidden size 2048, intermediate size 5632, 8 experts of which each token chooses 2, the same \
         ones for everybody. Milliseconds per layer. {}; reads {:.1} GB/s and does {:.0} GFLOP/s in float32 on these \
         threads at best, measured in the same run. In each round everybody has a turn in a process of its own; \
         numbers are medians over the rounds, of the medians of each, and all of them are in [raw.json](raw.json). \
         Layers follow each other from memory, so that no weight is in a cache. [kernels.md](../kernels.md) says \
         what is computed and how.\n\n\
         ![Operations per byte of weights against operations per second](roofline.svg)\n\n",
        text("command")?,
        text("processor")?,
        limit("read_bytes_per_second")? / 1e9,
        limit("float32_operations_per_second")? / 1e9,
    );
    times(results, &mut page);
    targets(results, &mut page);
    Ok(page)
}

fn times(results: &Results<'_>, page: &mut String) {
    let mut header = "| |".to_owned();
    for tokens in TOKENS {
        let _ = write!(header, " {tokens} token{} |", if *tokens == 1 { "" } else { "s" });
    }
    let _ = writeln!(page, "{header}\n| --- |{}", " ---: |".repeat(TOKENS.len()));
    for contender in Contender::ALL {
        let Some(runtime) = results.runtime(contender) else { continue };
        let mut line = format!("| {runtime} |");
        for tokens in TOKENS {
            let _ = match results.milliseconds(contender, *tokens) {
                Some(milliseconds) => write!(line, " {milliseconds:.2} |"),
                None => write!(line, " – |"),
            };
        }
        let _ = writeln!(page, "{line}");
    }
}

fn targets(results: &Results<'_>, page: &mut String) {
    page.push_str("\n## Against the targets\n\n| | measured | target | |\n| --- | ---: | ---: | --- |\n");
    for (tokens, target) in RATIOS {
        let best = results.best_peer(*tokens).map_or("none".to_owned(), |(peer, _)| peer.name());
        let what = format!("{tokens}: time as a multiple of the best peer's ({best})");
        let _ = writeln!(page, "{}", row(&what, results.ratio(*tokens), Target::AtMost(*target)));
    }
    for tokens in TOKENS {
        let what = format!("{tokens}: time of Candle's Q4K as a multiple of ours");
        let _ = writeln!(page, "{}", row(&what, results.candle(*tokens), Target::AtLeast(1.0)));
    }
    let share = results.number(Contender::Jetmoe, 1, "share_of_read");
    let _ = writeln!(page, "{}", row("1: share of the read bandwidth", share, Target::AtLeast(SHARE)));
}

/// What a number should be.
#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

fn row(what: &str, measured: Option<f64>, target: Target) -> String {
    let (sign, number) = match target {
        Target::AtLeast(number) => ("≥", number),
        Target::AtMost(number) => ("≤", number),
    };
    let is_reached = |measured: f64| match target {
        Target::AtLeast(number) => measured >= number,
        Target::AtMost(number) => measured <= number,
    };
    let verdict = match measured.map(is_reached) {
        None => "not measured",
        Some(true) => "reached",
        Some(false) => "**missed**",
    };
    let measured = measured.map_or("–".to_owned(), |measured| format!("{measured:.2}"));
    format!("| {what} | {measured} | {sign} {number:.2} | {verdict} |")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::raw;
    use super::*;

    #[test]
    fn the_page_has_a_row_for_everybody_and_says_what_was_missed() {
        let raw = raw();
        let page = page(&Results::new(&raw)).unwrap();
        for line in [
            "| jetmoe-kernels, 4-bit, `avx2` | 2.25 | 13.50 | – | – |",
            "| onnxruntime 1 | 3.00 | 30.00 | – | – |",
            "| 1: time as a multiple of the best peer's (onnxruntime) | 0.75 | ≤ 0.65 | **missed** |",
            "| 16: time as a multiple of the best peer's (openvino) | 0.50 | ≤ 0.60 | reached |",
            "| 128: time as a multiple of the best peer's (none) | – | ≤ 0.40 | not measured |",
            "| 1: share of the read bandwidth | 0.90 | ≥ 0.85 | reached |",
            "| 16: time of Candle's Q4K as a multiple of ours | 1.20 | ≥ 1.00 | reached |",
        ] {
            assert!(page.contains(line), "{page}");
        }
        assert!(!page.contains("transformers"), "{page}");
    }
}
