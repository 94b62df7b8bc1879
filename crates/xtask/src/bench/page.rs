//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::goals::{Goal, Target, goals};
use super::rounds::Rounds;
use super::{Peer, SHAPES};

pub(super) fn page(rounds: &Rounds<'_>) -> Result<String> {
    let machine = rounds.machine().context("jetmoe was not measured, and so neither was the machine")?;
    let command = rounds.raw["command"].as_str().context("the raw results name no command")?;
    let mut page = format!(
        "# Benchmarks\n\n\
         Made by `{command}`. {}, {:.0} GiB of memory; reads {:.1} GB/s and does {:.0} GFLOP/s in float32 on these \
         threads, as `jetmoe bench` measured in the same run. Everybody runs the same weights: random ones at JetMoE-8B's \
         widths. In each round everybody has a turn in a process of its own; numbers are medians over the rounds, of the \
         medians of each, and all of them are in [raw.json](raw.json). `jetmoe-q4` and `jetmoe-bf16` are the profile `native` in \
         ONNX Runtime, `jetmoe-q4-tract` the same file in tract, and the other two the profile `onnxruntime`. transformers and jetmoe compute the logits of a \
         prompt's last token, the others those of all tokens; `import` does not count as loading. `jetmoe` and `jetmoe-export` are \
         built for the dev profile, whose own crates that compute are optimised.\n\n\
         ![Decoding](decode.svg)\n\n",
        machine.processor,
        machine.memory_bytes / f64::from(1 << 30),
        machine.read_bytes_per_second / 1e9,
        machine.operations_per_second / 1e9,
    );
    table(rounds, &mut page);
    page.push_str("\n## Against the targets\n\n| | measured | target | |\n| --- | ---: | ---: | --- |\n");
    for goal in goals(rounds) {
        let _ = writeln!(page, "{}", row(&goal));
    }
    Ok(page)
}

fn table(rounds: &Rounds<'_>, page: &mut String) {
    let mut header = "| | load |".to_owned();
    for (batch, prompt) in SHAPES {
        let _ = write!(header, " prefill {batch}×{prompt} | step after it |");
    }
    let _ = writeln!(page, "{header}\n| --- |{}", " ---: |".repeat(1 + 2 * SHAPES.len()));
    for peer in Peer::ALL {
        let Some(runtime) = rounds.runtime(peer) else { continue };
        let cell = |number: Option<f64>, unit: &str| match number {
            Some(number) => format!("{number:.1} {unit}"),
            None => "–".to_owned(),
        };
        let mut line =
            format!("| {}: {runtime} | {} |", peer.name(), cell(rounds.number(peer, "/load_seconds"), "s"));
        for shape in SHAPES {
            let (prefill, decode) = (rounds.prefill(peer, *shape), rounds.decode(peer, *shape));
            let _ = write!(line, " {} | {} |", cell(prefill, "ms"), cell(decode, "ms"));
        }
        let _ = writeln!(page, "{line}");
    }
}

fn row(goal: &Goal) -> String {
    let number = |number: f64| match goal.is_share {
        true => format!("{:.1} %", number * 100.0),
        false => format!("{number:.2}"),
    };
    let target = match goal.target {
        Target::AtLeast(target) => format!("≥ {}", number(target)),
        Target::Below(target) => format!("< {}", number(target)),
        Target::Open => "–".to_owned(),
    };
    let verdict = match (goal.measured, goal.is_reached()) {
        (None, _) => "not measured",
        (_, Some(true)) => "reached",
        (_, Some(false)) => "**missed**",
        (_, None) => "",
    };
    format!("| {} | {} | {target} | {verdict} |", goal.what, goal.measured.map_or("–".to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::super::rounds::tests::raw;
    use super::*;

    #[test]
    fn the_page_has_a_row_per_peer_and_says_what_was_missed() {
        let raw = raw();
        let page = page(&Rounds::new(&raw)).unwrap();
        for line in [
            "| jetmoe-q4: ort 1.32.0 | 1.0 s | 15.0 ms | 1.5 ms |",
            "| decode, q4: times as fast as transformers in bfloat16 | 3.00 | ≥ 4.00 | **missed** |",
            "| decode, q4: share of the machine's read bandwidth | 40.0 % | ≥ 50.0 % | **missed** |",
        ] {
            assert!(page.contains(line), "{page}");
        }
        assert!(!page.contains("| openvino"), "{page}");
    }
}
