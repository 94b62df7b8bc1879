//! Log-probabilities of given continuations, against those of transformers.

use jetmoe::artifact::{OutputName, Precision, Task};
use jetmoe::conformance::Tolerance;
use jetmoe::rt::{Error, Generator, Score, ScoringOptions, ScoringRequest};
use jetmoe_testing::fixtures;
use serde::Deserialize;

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(
        subject,
        "scoring",
        named![
            continuations_have_the_tokens_and_log_probabilities_of_transformers,
            golden_sequences_have_the_log_probabilities_of_the_golden_logits,
        ],
    );
}

/// An entry of `scores.json`, see `make_scores.py`.
#[derive(Debug, Deserialize)]
struct Entry {
    prompt: String,
    continuation: String,
    prompt_ids: Vec<u32>,
    continuation_ids: Vec<u32>,
    log_probabilities: Vec<f64>,
    greedy: Vec<bool>,
}

fn entries() -> Vec<Entry> {
    let file = fixtures::folder().join("scores/scores.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Largest difference of a log-probability. A log-probability differs by at most twice what the logits may differ by.
fn largest_difference(scores: &Score, expected: &[f64]) -> f64 {
    assert_eq!(scores.tokens.len(), expected.len());
    let found = scores.tokens.iter().map(|token| token.log_probability);
    found.zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
}

fn continuations_have_the_tokens_and_log_probabilities_of_transformers(subject: Subject) {
    let export = Case::named("jetmoe-mini").export();
    if !export.is_exact(subject) {
        return;
    }
    let generator = Generator::new(&export.single_threaded_model(subject)).unwrap();
    let entries = entries();
    // twice, so that a long prompt has several continuations, which share its computation
    let twice = || entries.iter().chain(&entries);
    let pairs = || twice().map(|entry| (&entry.prompt, &entry.continuation));
    let mut largest = 0.0_f64;
    for (batch_size, max_step_tokens) in [(1, 512), (16, 512), (4, 24)] {
        let options =
            ScoringOptions::default().with_batch_size(batch_size).with_max_step_tokens(max_step_tokens);
        let results = generator.score_each(&ScoringRequest::pairs(pairs()).with_options(options)).unwrap();
        for (result, entry) in results.into_iter().zip(twice()) {
            if entry.continuation_ids.is_empty() {
                assert!(matches!(result, Err(Error::EmptyContinuation { .. })), "{entry:?}");
                continue;
            }
            let score = result.unwrap();
            let ids: Vec<u32> = score.tokens.iter().map(|token| token.token_id).collect();
            assert_eq!((score.prompt_tokens, ids), (entry.prompt_ids.len(), entry.continuation_ids.clone()));
            let greedy: Vec<bool> = score.tokens.iter().map(|token| token.is_greedy).collect();
            assert_eq!(greedy, entry.greedy, "{entry:?}");
            assert_eq!(score.is_greedy, entry.greedy.iter().all(|greedy| *greedy));
            largest = largest.max(largest_difference(&score, &entry.log_probabilities));
            let ids = ScoringRequest::pairs([(&entry.prompt_ids, &entry.continuation_ids)]);
            let by_ids = generator.score(&ids).unwrap().remove(0);
            largest = largest.max(largest_difference(&by_ids, &entry.log_probabilities));
        }
    }
    measured(&format!("{subject}: {largest:.1e} from transformers"));
    assert!(largest <= 2.0 * Tolerance::Float32.logits_absolute(), "{largest}");
}

/// The log-probability of each token of a golden sequence but the first, from the logits in the file.
fn golden_sequences_have_the_log_probabilities_of_the_golden_logits(subject: Subject) {
    let mut sequences = 0;
    for case in Case::all() {
        let export = case.export();
        let is_language_model =
            Task::of_architecture(export.checkpoint.config().architecture) == Task::CausalLm;
        if !is_language_model || !export.is_exact(subject) {
            continue;
        }
        let golden = case.golden();
        let logits = &golden.tensors[&OutputName::Logits]; // [batch, tokens, vocab_size]
        let generator = Generator::new(&export.model(subject)).unwrap();
        let mut largest = 0.0_f64;
        let rows = golden.batch.ids().rows().into_iter().zip(golden.batch.mask().rows());
        for (row, (ids, mask)) in rows.enumerate() {
            let padding = mask.iter().filter(|counts| !**counts).count();
            let ids: Vec<u32> = ids.iter().skip(padding).copied().collect();
            let expected = ids[1..].iter().enumerate().map(|(column, id)| {
                let logits = logits.slice(ndarray::s![row, padding + column, ..]);
                let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
                f64::from(logits[*id as usize]) - sum.ln()
            });
            let request = ScoringRequest::pairs([(&ids[..1], &ids[1..])]);
            let score = generator.score(&request).unwrap().remove(0);
            largest = largest.max(largest_difference(&score, &expected.collect::<Vec<_>>()));
            sequences += 1;
        }
        measured(&format!("{subject}, {}: {largest:.1e} from the golden logits", case.name));
        assert!(largest <= 2.0 * Tolerance::Float32.logits_absolute(), "{}: {largest}", case.name);
    }
    assert!(sequences > 0 || subject.precision != Precision::F32);
}
