//! The engine with a native graph on tract: what a job computes has the same bits alone and in any company.

#![cfg(feature = "tract")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use jetmoe_checkpoint::Checkpoint;
use jetmoe_export::{ExportOptions, export};
use jetmoe_rt::{
    Completion, Event, FinishReason, GenerationOptions, Generator, LoadOptions, LogProbabilities, Model,
    Multinomial, ObservedValue, Precision, Profile, Request, ScoringRequest,
};
use jetmoe_serve::{Engine, EngineOptions, Job, JobEvent, JobStream, PromptScores, TokenExperts};
use jetmoe_testing::fixtures;
use tempfile::TempDir;

/// The export of jetmoe-mini, made once; its destructor never runs, so it is in the folder for temporary files of tests.
static ARTIFACT: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = fixtures::checkpoint("jetmoe-mini");
    let options = ExportOptions {
        profile: Profile::Native,
        precision: Precision::Q4,
        ..ExportOptions::new(source.display().to_string(), folder.path())
    };
    export(&Checkpoint::open(&source).unwrap(), &options).unwrap();
    folder
});

fn load(folder: &Path, options: LoadOptions) -> Generator {
    let tract = jetmoe_rt::backend("tract").unwrap();
    let options = options.with_backend(tract).with_threads(1).with_batch_invariant(true);
    Generator::new(&Model::load(folder, &options).unwrap()).unwrap()
}

fn start(load_options: LoadOptions) -> Engine {
    let options = EngineOptions::default().with_slots(4).with_prefill_chunk(24).with_prefix_memory(16 << 20);
    Engine::start(load(ARTIFACT.path(), load_options), options).unwrap()
}

/// Beginnings of held-out texts, of different lengths; some of them begin alike.
fn prompts(engine: &Engine, count: usize) -> Vec<Vec<u32>> {
    let file = std::fs::read_to_string(fixtures::checkpoint("jetmoe-mini").join("eval.jsonl")).unwrap();
    let model = engine.generator().model();
    let texts = file.lines().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["text"].as_str().unwrap().to_owned()
    });
    let ids: Vec<Vec<u32>> =
        texts.map(|text| model.tokenizer().unwrap().encode(&text, true).unwrap()).collect();
    let mut random = fastrand::Rng::with_seed(11);
    let cut = |_| {
        let text = &ids[random.usize(0..ids.len().min(5))];
        text[..random.usize(1..text.len().min(120))].to_vec()
    };
    (0..count).map(cut).collect()
}

fn options(index: usize) -> GenerationOptions {
    let sampling = Multinomial::new(0.8).with_top_k(40).with_top_p(0.95);
    let options = GenerationOptions::default().with_max_new_tokens(4 + index % 13);
    match index % 4 {
        0 => options,
        1 => options.with_sampling(sampling).with_seed(index as u64),
        2 => options.with_repetition_penalty(1.2).with_log_probabilities(3),
        _ => options.with_sampling(sampling).with_seed(3).with_stop(["and"]).with_log_probabilities(0),
    }
}

#[derive(Debug, Default)]
struct Outcome {
    cached_tokens: usize,
    prompt: PromptScores,
    events: Vec<Event>,
    experts: Vec<TokenExperts>,
}

fn outcome(mut stream: JobStream) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(event) = stream.blocking_next() {
        match event {
            JobEvent::Started { cached_tokens, .. } => outcome.cached_tokens = cached_tokens,
            JobEvent::Prompt(scores) => outcome.prompt = scores,
            JobEvent::Token { event, experts } => {
                outcome.events.push(event);
                outcome.experts.push(experts);
            }
            JobEvent::Failed(error) => panic!("{error}"),
            event => panic!("{event:?}"),
        }
    }
    outcome
}

/// Token ids, text, reason and log-probabilities, all of which are equal bit by bit.
type Parts = (Vec<u32>, String, Option<FinishReason>, Vec<LogProbabilities>);

fn parts(outcome: &Outcome) -> Parts {
    let tokens = || outcome.events.iter().filter_map(|event| event.token.as_ref());
    (
        tokens().map(|token| token.token_id).collect(),
        outcome.events.iter().map(|event| event.text.as_str()).collect(),
        outcome.events.last().and_then(|event| event.finish_reason),
        tokens().filter_map(|token| token.log_probabilities.clone()).collect(),
    )
}

fn expected_parts(completion: Completion) -> Parts {
    let Completion { token_ids, text, finish_reason, log_probabilities, .. } = completion;
    (token_ids, text, Some(finish_reason), log_probabilities.unwrap_or_default())
}

#[test]
fn every_job_has_the_bits_of_its_solo_run() {
    let engine = start(LoadOptions::default());
    let prompts = prompts(&engine, 32);
    let alone = |(index, prompt): (usize, &Vec<u32>)| {
        let request = Request::new(prompt).with_options(options(index));
        expected_parts(engine.generator().run(request).unwrap())
    };
    let expected: Vec<Parts> = prompts.iter().enumerate().map(alone).collect();
    for round in 0..2 {
        let mut random = fastrand::Rng::with_seed(round);
        std::thread::scope(|scope| {
            for (index, (prompt, expected)) in prompts.iter().zip(&expected).enumerate() {
                let job = Job::new(prompt.clone(), options(index)).with_priority(random.i32(-1..2));
                let delay = Duration::from_millis(random.u64(0..150));
                let engine = &engine;
                scope.spawn(move || {
                    std::thread::sleep(delay);
                    let mut stream = engine.submit(job).unwrap();
                    if index % 8 == 7 {
                        // its client leaves
                        stream.blocking_next();
                        return;
                    }
                    assert_eq!(parts(&outcome(stream)), *expected, "job {index} of round {round}");
                });
            }
        });
    }
}

#[test]
fn a_reused_beginning_changes_no_bit() {
    let engine = start(LoadOptions::default());
    let prompt: Vec<u32> = prompts(&engine, 8).into_iter().max_by_key(Vec::len).unwrap();
    let run = |job: Job| outcome(engine.submit(job).unwrap());
    let first = run(Job::new(prompt.clone(), options(2)));
    let again = run(Job::new(prompt.clone(), options(2)));
    assert_eq!((first.cached_tokens, again.cached_tokens), (0, prompt.len() - 1));
    assert_eq!(parts(&first), parts(&again));
    let longer = [&prompt[..], &parts(&first).0, &[300, 301]].concat();
    let next = run(Job::new(longer.clone(), options(2)));
    assert!(next.cached_tokens >= prompt.len());
    let request = Request::new(longer).with_options(options(2));
    assert_eq!(parts(&next), expected_parts(engine.generator().run(request).unwrap()));
}

#[test]
fn kept_prefixes_change_no_bit_when_their_slots_are_taken() {
    let options = EngineOptions::default().with_slots(1).with_prefill_chunk(24).with_prefix_memory(16 << 20);
    let engine = Engine::start(load(ARTIFACT.path(), LoadOptions::default()), options).unwrap();
    let model = engine.generator().model();
    assert!(model.slots(1, 8).unwrap().is_joint());
    let all = prompts(&engine, 12);
    let run = |prompt: &[u32]| outcome(engine.submit(Job::new(prompt, self::options(2))).unwrap());
    for prompt in all.iter().chain(&all) {
        let request = Request::new(prompt).with_options(self::options(2));
        assert_eq!(parts(&run(prompt)), expected_parts(engine.generator().run(request).unwrap()));
    }
    // the only slot holds another sequence, so this comes from what was kept
    assert_eq!(run(&all[0]).cached_tokens, all[0].len() - 1);
}

#[test]
fn jobs_of_one_prompt_that_come_together_read_it_once() {
    let engine = start(LoadOptions::default());
    let prompt: Vec<u32> = prompts(&engine, 8).into_iter().max_by_key(Vec::len).unwrap();
    let jobs = (0..4).map(|index| engine.submit(Job::new(prompt.clone(), options(index))).unwrap());
    for (index, job) in jobs.collect::<Vec<_>>().into_iter().enumerate() {
        let found = outcome(job);
        assert_eq!(found.cached_tokens, if index == 0 { 0 } else { prompt.len() - 1 }, "job {index}");
        let request = Request::new(&prompt).with_options(options(index));
        assert_eq!(parts(&found), expected_parts(engine.generator().run(request).unwrap()));
    }
}

#[test]
fn the_scores_of_a_prompt_are_those_of_the_generator() {
    let engine = start(LoadOptions::default());
    for prompt in prompts(&engine, 6).into_iter().filter(|prompt| prompt.len() > 1) {
        let (first, rest) = prompt.split_at(1);
        let expected = engine.generator().score(&ScoringRequest::pairs([(first, rest)])).unwrap();
        let job =
            Job::new(prompt.clone(), options(0)).with_prompt_log_probabilities(2).with_generation(false);
        let found = outcome(engine.submit(job).unwrap()).prompt.tokens;
        assert_eq!(found.len(), rest.len());
        for ((score, _), expected) in found.iter().zip(&expected[0].tokens) {
            assert_eq!(*score, expected.log_probability as f32);
        }
        assert!(found.iter().all(|(score, best)| best.len() == 2 && best[0].log_probability >= *score));
    }
}

#[test]
fn observed_experts_are_reported_and_change_no_token() {
    let engine = start(LoadOptions::default().with_observed([ObservedValue::Routing]));
    let plain = start(LoadOptions::default());
    let config = engine.generator().model().config().clone();
    for (index, prompt) in prompts(&engine, 4).into_iter().enumerate() {
        let job = Job::new(prompt.clone(), options(index)).with_experts(true);
        let found = outcome(engine.submit(job).unwrap());
        assert_eq!(parts(&found), parts(&outcome(plain.submit(Job::new(prompt, options(index))).unwrap())));
        for (event, experts) in found.events.iter().zip(&found.experts) {
            assert_eq!(experts.len(), if event.token.is_some() { config.num_hidden_layers } else { 0 });
            for expert in experts.iter().flatten() {
                assert_eq!(expert.len(), config.num_experts_per_token);
                assert!(expert.iter().all(|expert| (*expert as usize) < config.num_local_experts));
            }
        }
    }
}
