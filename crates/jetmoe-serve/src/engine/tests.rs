//! The engine with a model whose logits are a function of the tokens: what it computes, in which company and order.

mod company;
mod constraints;
mod ends;
mod experts;
mod fake;
mod faults;
mod reuse;

use std::time::Duration;

use jetmoe_rt::{Completion, Event, FinishReason, GenerationOptions, Generator, Multinomial, Request};

use super::*;
use fake::FakeModel;

fn options() -> EngineOptions {
    EngineOptions::default().with_slots(3).with_prefill_chunk(4).with_prefix_memory(1 << 20)
}

fn start(model: &FakeModel, options: EngineOptions) -> Engine {
    Engine::start(Generator::new(&model.load()).unwrap(), options).unwrap()
}

fn at_most(max_new_tokens: usize) -> GenerationOptions {
    // 2 ends a sequence now and then
    GenerationOptions::default().with_max_new_tokens(max_new_tokens)
}

/// No token ends the sequence.
fn endless(max_new_tokens: usize) -> GenerationOptions {
    at_most(max_new_tokens).with_eos_token_ids(Vec::<u32>::new())
}

fn multinomial(seed: u64) -> GenerationOptions {
    at_most(12).with_sampling(Multinomial::new(0.9).with_top_k(20).with_top_p(0.95)).with_seed(seed)
}

/// What a job reported.
#[derive(Debug, Default)]
struct Outcome {
    cached_tokens: Option<usize>,
    prompt: Option<PromptScores>,
    events: Vec<Event>,
    experts: Vec<TokenExperts>,
    error: Option<Arc<JobError>>,
}

impl Outcome {
    fn text(&self) -> String {
        self.events.iter().map(|event| event.text.as_str()).collect()
    }

    fn token_ids(&self) -> Vec<u32> {
        self.events.iter().filter_map(|event| event.token.as_ref()).map(|token| token.token_id).collect()
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.events.last().and_then(|event| event.finish_reason)
    }

    #[track_caller]
    fn assert_is(&self, expected: &Completion) {
        assert!(self.error.is_none(), "{self:?}");
        assert_eq!(self.token_ids(), expected.token_ids);
        assert_eq!(self.text(), expected.text);
        assert_eq!(self.finish_reason(), Some(expected.finish_reason));
        if let Some(expected) = &expected.log_probabilities {
            let tokens = self.events.iter().filter_map(|event| event.token.as_ref());
            let found: Vec<_> = tokens.filter_map(|token| token.log_probabilities.clone()).collect();
            assert_eq!(&found, expected);
        }
    }
}

/// Reads the events of a job, and checks their order.
#[track_caller]
fn outcome(mut stream: JobStream) -> Outcome {
    let mut outcome = Outcome::default();
    let mut is_complete = false;
    while let Some(event) = stream.blocking_next() {
        assert!(!is_complete, "{event:?} after the last event");
        is_complete = event.is_last();
        match event {
            JobEvent::Started { cached_tokens, .. } => {
                assert!(outcome.events.is_empty() && outcome.prompt.is_none());
                assert_eq!(outcome.cached_tokens.replace(cached_tokens), None);
            }
            JobEvent::Prompt(scores) => {
                assert!(outcome.cached_tokens.is_some() && outcome.events.is_empty());
                assert_eq!(outcome.prompt.replace(scores), None);
            }
            JobEvent::Token { event, experts } => {
                outcome.events.push(event);
                outcome.experts.push(experts);
            }
            JobEvent::Failed(error) => outcome.error = Some(error),
        }
    }
    assert!(is_complete);
    outcome
}

fn run(engine: &Engine, job: Job) -> Outcome {
    outcome(engine.submit(job).unwrap())
}

/// What the generator gives for a job.
fn alone(engine: &Engine, prompt: &[u32], options: &GenerationOptions) -> Completion {
    engine.generator().run(Request::new(prompt).with_options(options.clone())).unwrap()
}

/// Waits until a condition holds.
#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came to {what}");
}

#[test]
fn an_engine_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    fn is_sent<T: Send>() {}
    is_shared::<Engine>();
    is_shared::<Job>();
    is_shared::<JobError>();
    is_sent::<JobStream>();
}
