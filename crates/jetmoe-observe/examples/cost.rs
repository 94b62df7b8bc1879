//! What it costs to observe a model: reads a text with the graph as it is, and with the outputs for routing or for the mask, in
//! turn, in every backend of the build and every graph of an artifact, with one thread.
//!
//! ```text
//! cargo build --release --workspace --example cost
//! target/release/examples/cost ARTIFACT TEXT-FILE [TOKENS [ROUNDS]]
//! ```
//!
//! A row has medians in milliseconds, and ratios to reading the text with the graph as it is.

#![allow(clippy::print_stdout, reason = "a program that prints what it measures")]

use std::error::Error;
use std::time::{Duration, Instant};

use jetmoe_observe::{StepOptions, attention_mask, batch, encode, routing};
use jetmoe_rt::{Artifact, LoadOptions, Model, ObservedValue, StepOutput, TokenBatch, backends};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, numbers @ ..] = arguments.as_slice() else {
        return Err("usage: cost ARTIFACT TEXT-FILE [TOKENS [ROUNDS]]".into());
    };
    let number = |index: usize, default: usize| numbers.get(index).map_or(Ok(default), |text| text.parse());
    let (most_tokens, rounds) = (number(0, 512)?, number(1, 9)?.max(1));
    let (artifact, text) = (Artifact::open(folder)?, std::fs::read_to_string(file)?);
    println!("graph                            tokens    plain  routing  ratio     mask  ratio");
    for backend in backends() {
        for graph in &artifact.manifest().graphs {
            let options = LoadOptions::default()
                .with_backend(*backend)
                // threads of one model wait actively for a while, and would slow the next one down
                .with_threads(1)
                .with_precision(graph.precision)
                .with_profile(graph.profile);
            if !backend.supports(graph, &options).is_yes() {
                continue;
            }
            let load = |observed: Option<ObservedValue>| {
                Model::load_artifact(&artifact, &options.clone().with_observed(observed))
            };
            let (plain, routed, masked) =
                (load(None)?, load(Some(ObservedValue::Routing))?, load(Some(ObservedValue::AttentionMask))?);
            let mut ids = encode(&plain, &text)?;
            ids.truncate(most_tokens.min(plain.config().max_position_embeddings));
            let tokens = batch(&plain, &[ids])?;
            let steps = StepOptions::default();
            // in turn, so that changes of the machine's speed affect all; the first round warms up
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            for round in 0..=rounds {
                let measured = [
                    time(|| read(&plain, &tokens))?,
                    time(|| routing(&routed, &tokens, &steps))?,
                    time(|| attention_mask(&masked, &tokens, &steps))?,
                ];
                if round > 0 {
                    times.iter_mut().zip(measured).for_each(|(times, time)| times.push(time));
                }
            }
            let [plain_time, routing_time, mask_time] = times.map(median);
            println!(
                "{:32} {:6} {:8.2} {:8.2} {:6.3} {:8.2} {:6.3}",
                format!("{} {} {}", backend.name(), graph.precision, graph.profile),
                tokens.sequence_length(),
                plain_time * 1e3,
                routing_time * 1e3,
                routing_time / plain_time,
                mask_time * 1e3,
                mask_time / plain_time
            );
        }
    }
    Ok(())
}

/// Reads the tokens, as a generation does.
fn read(model: &Model, tokens: &TokenBatch) -> jetmoe_rt::Result<StepOutput> {
    model.session()?.prefill(tokens, tokens.sequence_length())
}

fn time<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}
