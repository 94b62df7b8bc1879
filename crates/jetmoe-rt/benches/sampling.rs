//! Time to sample a token, measured through the generator with a graph that computes nothing and always returns the same
//! logits of 32000 tokens. `a step alone` is the overhead that all others include.
//!
//! `cargo xtask bench --micro` runs it.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::Criterion;
use jetmoe_artifact::{OutputName, Precision, Profile, Signature, Task};
use jetmoe_checkpoint::{GenerationConfig, ModelConfig, jetmoe_8b_config};
use jetmoe_rt::{
    BackendError, GenerationOptions, Generator, GraphSession, LoadedGraph, Model, Multinomial, Request,
    Result, Sampling, StepInputs, TensorMap, TokenBatch,
};
use ndarray::Array3;

/// Tokens per continuation; the reported time is per token.
const TOKENS: u32 = 256;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let model = model();
    let generator = Generator::new(&model)?;
    // every step applies the repetition penalty to these tokens
    let prompt: Vec<u32> = (0..512).map(|index| index * 61).collect();
    let random = |top_k: Option<usize>, top_p: Option<f32>| {
        Sampling::from(Multinomial::default().with_top_k(top_k).with_top_p(top_p))
    };

    per_token(&mut criterion, "a step alone", || {
        let mut session = model.session()?;
        (0..TOKENS).try_for_each(|id| session.step(&TokenBatch::next_tokens(&[id])).map(drop))
    })?;
    for (name, sampling, repetition_penalty) in [
        ("greedy", Sampling::Greedy, 1.0),
        ("greedy, repetition penalty", Sampling::Greedy, 1.1),
        ("all tokens", random(None, None), 1.0),
        ("top-k of 50", random(Some(50), None), 1.0),
        ("top-p of 0.95", random(None, Some(0.95)), 1.0),
        ("top-k, top-p, repetition penalty", random(Some(50), Some(0.95)), 1.1),
    ] {
        let options = GenerationOptions::default()
            .with_max_new_tokens(TOKENS as usize)
            .with_sampling(sampling)
            .with_repetition_penalty(repetition_penalty)
            .with_eos_token_ids(Vec::new())
            .with_seed(7);
        let request = Request::new(&prompt).with_options(options);
        per_token(&mut criterion, name, || generator.run(request.clone()).map(drop))?;
    }
    criterion.final_summary();
    Ok(())
}

/// Measures a function that generates [`TOKENS`] tokens.
fn per_token(criterion: &mut Criterion, name: &str, make: impl Fn() -> Result<()>) -> Result<()> {
    // if the first call succeeds, all do
    make()?;
    criterion.bench_function(&format!("sampling/{name}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let begun = Instant::now();
            for _ in 0..iterations {
                black_box(make()).ok();
            }
            begun.elapsed() / TOKENS
        });
    });
    Ok(())
}

fn model() -> Model {
    let config = ModelConfig::from_json(&jetmoe_8b_config())
        .unwrap_or_else(|problems| unreachable!("the configuration of JetMoE-8B has problems: {problems:?}"));
    // the r-th best of 32000 tokens has a probability of about r to the power of −1.5, so the best 201 have 0.95 of it;
    // their ids are scattered
    let vocab_size = config.vocab_size;
    let rank = |id: usize| (id * 7919) % vocab_size + 1;
    let logits = Array3::from_shape_fn((1, 1, vocab_size), |(_, _, id)| -1.5 * (rank(id) as f32).ln());
    let task = Task::CausalLm;
    let signature = Signature::new(&config, task, Precision::F32, Profile::Portable, &BTreeSet::new());
    let outputs = TensorMap::from([(OutputName::Logits, logits.into_dyn())]);
    let graph = Arc::new(ConstantGraph { signature, outputs });
    let generation_config = GenerationConfig::from_model_config(&config);
    Model::from_graph(graph, config, task, None, generation_config)
}

/// Returns the same logits in every step.
#[derive(Debug)]
struct ConstantGraph {
    signature: Signature,
    outputs: TensorMap,
}

#[derive(Debug)]
struct ConstantSession(TensorMap);

impl LoadedGraph for ConstantGraph {
    fn backend(&self) -> String {
        "constant".to_owned()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn start(&self) -> Result<Box<dyn GraphSession>, BackendError> {
        Ok(Box::new(ConstantSession(self.outputs.clone())))
    }
}

impl GraphSession for ConstantSession {
    fn run(&mut self, _inputs: &StepInputs) -> Result<TensorMap, BackendError> {
        Ok(self.0.clone())
    }

    fn cache(&self) -> Result<TensorMap, BackendError> {
        Ok(TensorMap::new())
    }

    fn truncate(&mut self, _tokens: usize) -> Result<(), BackendError> {
        Ok(())
    }
}
