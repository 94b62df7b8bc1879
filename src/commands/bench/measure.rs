//! Runs a model and measures its time.

use std::time::{Duration, Instant};

use jetmoe_artifact::Artifact;
use jetmoe_console::ProgressBar;
use jetmoe_rt::{Backend, GenerationOptions, LoadOptions, Model, Session, TokenBatch, choose_graph};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::machine::Machine;
use super::memory;
use super::report::{Decode, Measured, Prefill, Run};
use super::spread::Spread;
use super::traffic::{Step, Traffic};

/// What to measure of each model.
pub(crate) struct Plan<'a> {
    pub(crate) batches: &'a [usize],
    pub(crate) prompt_tokens: &'a [usize],
    pub(crate) new_tokens: usize,
    pub(crate) repetitions: usize,
    pub(crate) seed: u64,
}

impl Plan<'_> {
    /// Number of prompts, each with its continuation, including those that warm up.
    pub(crate) fn rounds(&self) -> usize {
        self.batches.len() * self.prompt_tokens.len() * (self.repetitions + 1)
    }
}

/// Times of one prompt and its continuation.
struct Round {
    prefill: Duration,
    steps: Vec<StepTime>,
}

#[derive(Clone, Copy)]
struct StepTime {
    whole: Duration,
    /// Time inside the backend, if it reports that.
    backend: Option<Duration>,
}

/// Loads a graph, measures it and drops it.
pub(crate) fn measure(
    artifact: &Artifact,
    options: &LoadOptions,
    backend: &dyn Backend,
    plan: &Plan<'_>,
    machine: &Machine,
    bar: &ProgressBar,
) -> anyhow::Result<Measured> {
    let record = choose_graph(artifact, backend, options)?;
    let knows_peak = memory::reset_peak();
    let started = Instant::now();
    let model = Model::load_artifact(artifact, options)?;
    let load_seconds = started.elapsed().as_secs_f64();

    let traffic = Traffic::new(artifact.config(), record);
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut runs = Vec::new();
    for &batch in plan.batches {
        for &prompt_tokens in plan.prompt_tokens {
            let mut rounds = Vec::new();
            for _ in 0..=plan.repetitions {
                rounds.push(round(&model, batch, prompt_tokens, plan.new_tokens, &mut random)?);
                bar.inc(1);
            }
            // the first round of a shape warms up: it allocates
            rounds.remove(0);
            runs.push(Run {
                batch,
                prompt_tokens,
                new_tokens: plan.new_tokens,
                prefill: prefill(&rounds, &traffic, machine, batch, prompt_tokens),
                decode: decode(&rounds, &traffic, machine, batch, prompt_tokens),
            });
        }
    }
    Ok(Measured {
        runtime: model.backend(),
        graph: record.graph.path.clone(),
        precision: record.precision,
        profile: record.profile,
        load_seconds,
        data_bytes: record.data.size,
        memory: if knows_peak { memory::used() } else { None },
        runs,
    })
}

/// Measures a prompt and a continuation of random tokens. The work does not depend on which tokens they are, except for
/// the experts that they choose.
fn round(
    model: &Model,
    batch: usize,
    prompt_tokens: usize,
    new_tokens: usize,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<Round> {
    let vocab_size = model.config().vocab_size as u64;
    let mut tokens =
        |count: usize| -> Vec<u32> { (0..count).map(|_| (random.next_u64() % vocab_size) as u32).collect() };
    let prompts: Vec<Vec<u32>> = (0..batch).map(|_| tokens(prompt_tokens)).collect();
    let prompts = TokenBatch::left_padded(&prompts, 0)?;
    let mut session = model.session()?;
    let started = Instant::now();
    session.prefill(&prompts, GenerationOptions::default().prefill_chunk)?.last_logits(0)?;
    let prefill = started.elapsed();
    let steps = (0..new_tokens).map(|_| step(&mut session, &TokenBatch::next_tokens(&tokens(batch))));
    Ok(Round { prefill, steps: steps.collect::<anyhow::Result<_>>()? })
}

/// One step, including the last token's logits.
fn step(session: &mut Session, tokens: &TokenBatch) -> anyhow::Result<StepTime> {
    let started = Instant::now();
    let output = session.step(tokens)?;
    output.last_logits(0)?;
    drop(output);
    Ok(StepTime { whole: started.elapsed(), backend: session.backend_time() })
}

fn prefill(
    rounds: &[Round],
    traffic: &Traffic<'_>,
    machine: &Machine,
    batch: usize,
    prompt_tokens: usize,
) -> Prefill {
    let seconds = Spread::of_seconds(&rounds.iter().map(|round| round.prefill).collect::<Vec<_>>());
    let step = Step { batch, new_tokens: prompt_tokens, past_tokens: 0 };
    let operations_per_second = traffic.operations(step) / seconds.median;
    Prefill {
        tokens_per_second: seconds.rate((batch * prompt_tokens) as f64),
        milliseconds: seconds.times(1e3),
        share_of_arithmetic_peak: operations_per_second / machine.operations_per_second,
    }
}

fn decode(
    rounds: &[Round],
    traffic: &Traffic<'_>,
    machine: &Machine,
    batch: usize,
    prompt_tokens: usize,
) -> Decode {
    let steps: Vec<StepTime> = rounds.iter().flat_map(|round| round.steps.iter().copied()).collect();
    let seconds = Spread::of_seconds(&steps.iter().map(|step| step.whole).collect::<Vec<_>>());
    // the cache grows during the measurement; take its average length
    let new_tokens = rounds.first().map_or(0, |round| round.steps.len());
    let step = Step { batch, new_tokens: 1, past_tokens: prompt_tokens + new_tokens / 2 };
    let (weights, cache) = (traffic.weight_bytes(step), traffic.cache_bytes(step));
    Decode {
        tokens_per_second: seconds.rate(batch as f64),
        milliseconds_per_step: seconds.times(1e3),
        weight_bytes_per_step: weights,
        weight_bytes_per_token: weights / batch as f64,
        cache_bytes_per_step: cache,
        share_of_read_bandwidth: (weights + cache) / seconds.median / machine.read_bytes_per_second,
        share_of_arithmetic_peak: traffic.operations(step) / seconds.median / machine.operations_per_second,
        runtime_overhead: overhead(&steps),
    }
}

/// Median share of a step outside the backend: checks, mask, positions, copying tensors.
fn overhead(steps: &[StepTime]) -> Option<f64> {
    let shares = steps.iter().map(|step| {
        let outside = step.whole.saturating_sub(step.backend?);
        Some(outside.as_secs_f64() / step.whole.as_secs_f64())
    });
    shares.collect::<Option<Vec<f64>>>().map(|shares| Spread::of(shares).median)
}

#[cfg(test)]
mod tests;
