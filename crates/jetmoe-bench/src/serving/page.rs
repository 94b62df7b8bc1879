//! The page with the results.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Server::{self, Jetmoe, LlamaServer};
use crate::goal::{Goal, Target, Unit, goals_section};
use crate::pages::{File, Stored};
use crate::processor::Processor;
use crate::rounds::Rounds;

/// Goals for tokens per second of all requests as a multiple of one: with and without VNNI.
const VNNI_SCALING: f64 = 3.5;
const AVX2_SCALING: f64 = 2.2;

/// The page of one processor.
pub(super) fn render(rounds: &Rounds<'_>) -> Result<Vec<File>> {
    let command = rounds.raw["command"].as_str().context("the raw results have no command; measure anew")?;
    let mut page = format!(
        "# Serving\n\n\
         Made by `{command}`: two layers of JetMoE-8B's widths in 4 bits, and a Mixtral in Q4_0 that reads and computes per \
         token what they do, in llama.cpp's server. Both get the same requests: greedy completions of random token ids, as \
         streams over loopback. Processor: {}. Each round starts every server in turn; numbers are medians over the rounds, and \
         [raw.json](raw.json) has all of them.\n\n\
         | | {} |\n| --- |{}\n",
        Processor::of_results(rounds.raw)?,
        measured(rounds).map(|server| runtime(rounds, server)).collect::<Vec<_>>().join(" | "),
        " ---: |".repeat(measured(rounds).count()),
    );
    let many = streams(rounds)?;
    let mut row = |what: &str, digits: usize, value: &dyn Fn(Server) -> Option<f64>| {
        let values: Vec<String> = measured(rounds)
            .map(|server| value(server).map_or("–".to_owned(), |value| format!("{value:.digits$}")))
            .collect();
        let _ = writeln!(page, "| {what} | {} |", values.join(" | "));
    };
    row("1 request: tokens per second", 1, &|server| of_run(rounds, server, 1, "/tokens_per_second"));
    row(&format!("{many} requests: tokens per second"), 1, &|server| {
        of_run(rounds, server, many, "/tokens_per_second")
    });
    row(&format!("{many} requests: tokens per second, with their prompts"), 1, &|server| {
        of_run(rounds, server, many, "/all_tokens_per_second")
    });
    row(&format!("{many} requests: first token after ms"), 0, &|server| {
        of_run(rounds, server, many, "/first_token_milliseconds")
    });
    let interruption = |what| move |server: Server| rounds.number(server.name(), what);
    row(
        "prompt of 2000 tokens beside the others: first token after ms",
        0,
        &interruption("/interruption/first_token_milliseconds"),
    );
    row(
        "meanwhile, between two tokens of the others: median ms",
        1,
        &interruption("/interruption/median_gap_milliseconds"),
    );
    row("the same, 99th percentile", 1, &interruption("/interruption/p99_gap_milliseconds"));
    page.push_str(&goals_section(&goals(rounds)?));
    page.push_str(
        "\nTokens per second are the sum of the rates of all streams after their first token. A chunk is the time to the first \
         token of the long prompt divided by the 256 tokens at a time in which it is read. What is outside of steps is the time in \
         which the model computes nothing, by the server's own metrics, while all requests decode: scheduling, choosing tokens, HTTP, \
         and what the client takes of the same processor. llama.cpp's server is built for this processor, without AMX, with which \
         version 0.3.36 of its package ends with a segmentation fault.\n",
    );
    Ok(vec![("README.md", page)])
}

fn measured<'a>(rounds: &'a Rounds<'_>) -> impl Iterator<Item = Server> + use<'a> {
    [Jetmoe, LlamaServer].into_iter().filter(|server| !rounds.of(server.name()).is_empty())
}

fn runtime(rounds: &Rounds<'_>, server: Server) -> String {
    let results = rounds.of(server.name());
    results.first().and_then(|result| result["runtime"].as_str()).unwrap_or(server.name()).to_owned()
}

/// Requests at the same time.
fn streams(rounds: &Rounds<'_>) -> Result<u64> {
    let runs = measured(rounds)
        .flat_map(|server| rounds.of(server.name()))
        .filter_map(|result| result["runs"].as_array());
    let streams = runs.flatten().filter_map(|run| run["streams"].as_u64());
    streams.max().context("the raw results have no runs; measure anew")
}

fn of_run(rounds: &Rounds<'_>, server: Server, streams: u64, pointer: &str) -> Option<f64> {
    rounds.number_of_run(server.name(), |run: &Value| run["streams"] == streams, pointer)
}

fn goals(rounds: &Rounds<'_>) -> Result<Vec<Goal>> {
    let many = streams(rounds)?;
    let rate = |server, streams| of_run(rounds, server, streams, "/tokens_per_second");
    let ratio = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let goal = |what: String, measured, target| Goal { what, measured, target, unit: Unit::Ratio };
    let sets = rounds.raw["instruction_sets"].as_array();
    let has_vnni = sets.is_some_and(|sets| sets.iter().any(|set| set == "avx512vnni" || set == "avxvnni"));
    let scaling = if has_vnni { VNNI_SCALING } else { AVX2_SCALING };
    Ok(vec![
        goal(
            format!("tokens per second with {many} requests as a multiple of one"),
            ratio(rate(Jetmoe, many), rate(Jetmoe, 1)),
            Target::AtLeast(scaling),
        ),
        goal(
            format!("tokens per second with {many} requests as a multiple of llama.cpp's server"),
            ratio(rate(Jetmoe, many), rate(LlamaServer, many)),
            Target::AtLeast(1.5),
        ),
        Goal {
            unit: Unit::Percent,
            ..goal(
                format!("time outside of steps with {many} requests"),
                of_run(rounds, Jetmoe, many, "/share_outside_of_steps"),
                Target::AtMost(0.03),
            )
        },
        goal(
            "99th percentile between two tokens while the long prompt is read, in chunks".to_owned(),
            rounds.number(Jetmoe.name(), "/interruption/p99_gap_in_chunks"),
            Target::AtMost(2.0),
        ),
    ])
}

/// All processors side by side.
pub(super) fn index(all: &[Stored]) -> Result<String> {
    let mut page = "# Serving\n\n\
         `jetmoe serve` and llama.cpp's server with the same requests. `cargo xtask bench --serving` measures on the processor that \
         it runs on and adds a page. Tokens per second with one request, and with many at the same time.\n\n\
         | processor | requests | jetmoe, 1 | jetmoe, many | llama-server, 1 | llama-server, many |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for Stored { folder, raw } in all {
        let rounds = Rounds { raw };
        let many = streams(&rounds)?;
        let _ = write!(page, "| [{}]({folder}/README.md) | {many} |", Processor::of_results(raw)?);
        for (server, streams) in [(Jetmoe, 1), (Jetmoe, many), (LlamaServer, 1), (LlamaServer, many)] {
            let _ = match of_run(&rounds, server, streams, "/tokens_per_second") {
                Some(rate) => write!(page, " {rate:.1} |"),
                None => write!(page, " – |"),
            };
        }
        page.push('\n');
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw() -> Value {
        let server = |one: f64, many: f64, gap: f64| {
            json!({
                "runtime": "a server",
                "runs": [
                    {"streams": 1, "tokens_per_second": one},
                    {"streams": 16, "tokens_per_second": many, "share_outside_of_steps": 0.02},
                ],
                "interruption": {"p99_gap_in_chunks": gap},
            })
        };
        json!({
            "command": "cargo xtask bench --serving",
            "processor": "Xeon",
            "instruction_sets": ["avx2", "avx512vnni"],
            "rounds": [
                {"jetmoe": server(100.0, 380.0, 1.5), "llama-server": server(90.0, 200.0, 9.0)},
                {"jetmoe": server(100.0, 400.0, 1.2), "llama-server": server(90.0, 200.0, 9.0)},
                {"jetmoe": server(100.0, 420.0, 2.5), "llama-server": server(90.0, 200.0, 9.0)},
            ],
        })
    }

    #[test]
    fn goals_are_medians_of_jetmoe_against_the_other_server() {
        let raw = raw();
        let found: Vec<_> = goals(&Rounds { raw: &raw })
            .unwrap()
            .iter()
            .map(|goal| (goal.measured, goal.is_reached()))
            .collect();
        assert_eq!(
            found,
            [
                (Some(4.0), Some(true)),
                (Some(2.0), Some(true)),
                (Some(0.02), Some(true)),
                (Some(1.5), Some(true))
            ]
        );
    }

    #[test]
    fn a_server_that_was_not_measured_has_no_column() {
        let mut raw = raw();
        for round in raw["rounds"].as_array_mut().unwrap() {
            round.as_object_mut().unwrap().remove("llama-server");
        }
        let (_, page) = render(&Rounds { raw: &raw }).unwrap().remove(0);
        assert!(page.contains("| 16 requests: tokens per second | 400.0 |"), "{page}");
        assert!(page.contains("as a multiple of llama.cpp's server | – | ≥ 1.50 | not measured |"), "{page}");
    }
}
