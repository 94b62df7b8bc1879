//! Rules and filters against transformers' logits processors, on the recorded logits of `tests/fixtures/generation/rules.json`.

use jetmoe_checkpoint::GenerationConfig;
use jetmoe_testing::fixtures;
use serde_json::{Map, Value};

use super::super::sampling::tests::{Distribution, distribution};
use super::super::sequence::Limits;
use super::*;

const TOLERANCE: f64 = 1e-6;

fn recorded() -> Value {
    let file = fixtures::folder().join("generation/rules.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

fn logits(value: &Value) -> Vec<f32> {
    let number = |value: &Value| match value {
        Value::Null => f32::NAN,
        Value::String(text) => text.parse().unwrap(),
        number => number.as_f64().unwrap() as f32,
    };
    value.as_array().unwrap().iter().map(number).collect()
}

/// Options as a checkpoint with these settings has them; transformers has no key for two penalties.
fn options(settings: &Map<String, Value>, vocab_size: usize) -> (GenerationOptions, Vec<u32>) {
    let config = GenerationConfig::from_json(settings, vocab_size).unwrap();
    assert_eq!(config.not_applied(), []);
    let penalty = |key: &str| settings.get(key).and_then(Value::as_f64).unwrap_or(0.0) as f32;
    let options = GenerationOptions::from_config(&config)
        .with_presence_penalty(penalty("presence_penalty"))
        .with_frequency_penalty(penalty("frequency_penalty"));
    options.validate().unwrap();
    (options, config.eos_token_ids)
}

#[test]
fn every_rule_and_filter_gives_the_distribution_of_transformers() {
    let recorded = recorded();
    let vocab_size = recorded["vocab_size"].as_u64().unwrap() as usize;
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() > 250, "{} cases", cases.len());
    for case in cases {
        let settings = case["settings"].as_object().unwrap();
        let (options, eos_token_ids) = options(settings, vocab_size);
        let logits = logits(&recorded["logits"][case["logits"].as_u64().unwrap() as usize]);
        let prompt = ids(&case["prompt"]);
        let all = [prompt.clone(), ids(&case["generated"])].concat();
        let limits = SequenceLimits {
            prompt_length: prompt.len(),
            new_tokens: Limits::new(&options, prompt.len(), usize::MAX).new_tokens(),
            eos_token_ids: &eos_token_ids,
        };
        let tokens = Tokens { all: &all, prompt_length: prompt.len() };
        let Distribution { best, probabilities } = distribution(&options, &logits, tokens, limits);
        let found: Vec<u32> = probabilities.iter().map(|(id, _)| *id).collect();
        assert_eq!(found, ids(&case["kept"]), "{settings:?} after {all:?}");
        assert_eq!(u64::from(best), case["best"].as_u64().unwrap(), "{settings:?} after {all:?}");
        for ((id, found), expected) in probabilities.iter().zip(case["probabilities"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() <= TOLERANCE, "{id}: {found}, {expected}, {settings:?}");
        }
    }
}

/// A rule that was called for every token of a sequence has the state of one that is called for the last token only.
#[test]
fn rules_follow_a_sequence_token_by_token() {
    let recorded = recorded();
    let vocab_size = recorded["vocab_size"].as_u64().unwrap() as usize;
    let scores = logits(&recorded["logits"][0]);
    for case in recorded["cases"].as_array().unwrap() {
        let (options, eos_token_ids) = options(case["settings"].as_object().unwrap(), vocab_size);
        let prompt = ids(&case["prompt"]);
        let all = [prompt.clone(), ids(&case["generated"])].concat();
        let limits = SequenceLimits {
            prompt_length: prompt.len(),
            new_tokens: Limits::new(&options, prompt.len(), usize::MAX).new_tokens(),
            eos_token_ids: &eos_token_ids,
        };
        let mut steps = Rules::new(&options, limits);
        let mut last = Vec::new();
        for length in prompt.len()..=all.len() {
            last.clone_from(&scores);
            steps.apply(Tokens { all: &all[..length], prompt_length: prompt.len() }, &mut last);
        }
        let mut at_once = scores.clone();
        Rules::new(&options, limits).apply(Tokens { all: &all, prompt_length: prompt.len() }, &mut at_once);
        assert_eq!(last, at_once, "{case}");
    }
}

#[test]
fn biases_and_penalties_beyond_float32_leave_finite_probabilities() {
    let limits = SequenceLimits { prompt_length: 1, new_tokens: 9000, eos_token_ids: &[2, 3] };
    let biases =
        vec![(vec![0], f32::MAX), (vec![5, 0], f32::MAX), (vec![1], f32::NEG_INFINITY), (vec![5, 1], 7.0)];
    let options = GenerationOptions::default()
        .with_sequence_bias(biases)
        .with_exponential_decay_length_penalty((1, 1e300));
    options.validate().unwrap();
    let tokens = Tokens { all: &[5; 9], prompt_length: 1 };
    // the score of one end-of-sequence token is 0, whose product with infinity is NaN
    let mut scores = [f32::MAX, 1.0, 0.0, -3.0, 0.5];
    Rules::new(&options, limits).apply(tokens, &mut scores);
    assert_eq!(scores, [f32::MAX, f32::NEG_INFINITY, 0.0, f32::MAX, 0.5]);
}

#[test]
fn options_without_rules_have_none() {
    let limits = SequenceLimits { prompt_length: 3, new_tokens: 9, eos_token_ids: &[2] };
    assert!(Rules::new(&GenerationOptions::default(), limits).is_empty());
    let config = GenerationConfig::from_json(&Map::new(), 9).unwrap();
    assert!(Rules::new(&GenerationOptions::from_config(&config), limits).is_empty());
}

#[test]
fn a_least_number_of_tokens_that_no_computer_can_count_excludes_the_end() {
    let limits = SequenceLimits { prompt_length: 3, new_tokens: 9, eos_token_ids: &[2] };
    let options = GenerationOptions::default().with_min_new_tokens(usize::MAX);
    let mut scores = [0.0; 4];
    Rules::new(&options, limits).apply(Tokens { all: &[5, 6, 7, 1], prompt_length: 3 }, &mut scores);
    assert_eq!(scores, [0.0, 0.0, f32::NEG_INFINITY, 0.0]);
}
