use std::sync::Arc;
use std::sync::atomic::Ordering;

use ndarray::array;

use super::*;
use crate::fake::{self, FakeModel};
use crate::{CancellationToken, ChatMessage};

/// A model of 50 tokens whose logits depend on all tokens before.
fn hashed() -> FakeModel {
    let mut model = FakeModel::new(|seen| fake::hashed(seen, 50));
    model.config.vocab_size = 50;
    model
}

fn generator(model: FakeModel) -> Generator {
    Generator::new(&model.load()).unwrap()
}

/// With the tokenizer of jetmoe-mini; logits that cost little.
fn with_text() -> Generator {
    let model =
        FakeModel::new(|seen| (0..2048).map(|id| ((id * 7 + seen.len() * 13) % 101) as f32 * 0.1).collect());
    generator(model)
}

/// Log-probability of each token after `prompt`, by the definition.
fn by_definition(prompt: &[u32], continuation: &[u32]) -> Vec<f64> {
    (0..continuation.len())
        .map(|index| {
            let logits = fake::hashed(&[prompt, &continuation[..index]].concat(), 50);
            let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            f64::from(logits[continuation[index] as usize]) - sum.ln()
        })
        .collect()
}

fn log_probabilities(score: &Score) -> Vec<f64> {
    score.tokens.iter().map(|token| token.log_probability).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }
}

const PAIRS: [(&[u32], &[u32]); 6] = [
    (&[1, 7], &[9, 3, 3]),
    (&[5], &[6]),
    (&[9, 9, 9, 4, 8, 20, 3], &[11]),
    (&[1, 30, 31], &[40, 41, 42, 43, 44, 45]),
    (&[40, 41, 42, 43, 44], &[1, 2]),
    (&[6], &[7, 8, 9, 10, 11, 12, 13, 14]),
];

#[test]
fn every_token_of_a_continuation_has_the_log_probability_of_the_definition() {
    for batch_size in [1, 2, 4, 16] {
        for max_step_tokens in [1, 3, 7, 512] {
            let options =
                ScoringOptions::default().with_batch_size(batch_size).with_max_step_tokens(max_step_tokens);
            let request = ScoringRequest::pairs(PAIRS).with_options(options);
            let scores = generator(hashed()).score(&request).unwrap();
            assert_eq!(scores.len(), PAIRS.len());
            for (score, (prompt, continuation)) in scores.iter().zip(PAIRS) {
                let expected = by_definition(prompt, continuation);
                assert_close(&log_probabilities(score), &expected);
                assert_close(&[score.log_probability], &[expected.iter().sum()]);
                assert_eq!(score.prompt_tokens, prompt.len());
                let ids: Vec<u32> = score.tokens.iter().map(|token| token.token_id).collect();
                assert_eq!(ids, continuation);
                let perplexity = (-score.log_probability / continuation.len() as f64).exp();
                assert!((score.perplexity() / perplexity - 1.0).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn a_step_has_no_more_tokens_than_allowed_and_the_last_token_is_not_read() {
    let model = hashed();
    let (steps, computed) = (Arc::clone(&model.steps), Arc::clone(&model.computed));
    let options = ScoringOptions::default().with_max_step_tokens(8);
    let pairs = [([1; 20], [2; 5]), ([3; 20], [4; 5])];
    generator(model).score(&ScoringRequest::pairs(pairs).with_options(options)).unwrap();
    // 24 tokens of each: 19 of the prompt in steps of 4, the last one and 4 of the continuation in two steps
    assert_eq!((steps.load(Ordering::Relaxed), computed.load(Ordering::Relaxed)), (5 + 2, 2 * 24));
}

#[test]
fn a_long_prompt_is_computed_once_for_all_of_its_continuations() {
    let prompt: Vec<u32> = (0..40).collect();
    let continuations: [&[u32]; 4] = [&[7], &[9, 8], &[1, 2, 3, 4, 5, 6], &[7]];
    for max_step_tokens in [1, 4, 512] {
        let model = hashed();
        let computed = Arc::clone(&model.computed);
        let mut pairs: Vec<(&[u32], &[u32])> = vec![(&[5], &[6, 7])];
        pairs.extend(continuations.map(|continuation| (prompt.as_slice(), continuation)));
        let options = ScoringOptions::default().with_max_step_tokens(max_step_tokens);
        let scores =
            generator(model).score(&ScoringRequest::pairs(pairs.clone()).with_options(options)).unwrap();
        for (score, (prompt, continuation)) in scores.iter().zip(pairs) {
            assert_close(&log_probabilities(score), &by_definition(prompt, continuation));
            assert_eq!(score.prompt_tokens, prompt.len());
        }
        // the prompt once, and of each sequence what follows the prompt without the last token
        assert_eq!(computed.load(Ordering::Relaxed), 2 + 40 + 1 + 5);
    }
}

#[test]
fn a_continuation_that_greedy_decoding_gives_is_greedy() {
    let generator = generator(hashed());
    let options = crate::GenerationOptions::default().with_max_new_tokens(6).with_eos_token_ids(vec![]);
    let greedy = generator.run(crate::Request::new([1, 7]).with_options(options)).unwrap().token_ids;
    let mut other = greedy.clone();
    other[3] = (other[3] + 1) % 50;
    let scores = generator.score(&ScoringRequest::continuations([1, 7], [&greedy, &other])).unwrap();
    assert!(scores[0].is_greedy && scores[0].tokens.iter().all(|token| token.is_greedy));
    assert!(!scores[1].is_greedy);
    let flags: Vec<bool> = scores[1].tokens[..4].iter().map(|token| token.is_greedy).collect();
    assert_eq!(flags, [true, true, true, false]);
    assert!(scores[1].tokens[3].log_probability < scores[0].tokens[3].log_probability);
}

#[test]
fn the_most_probable_tokens_are_those_of_a_generation() {
    let generator = generator(hashed());
    let options = crate::GenerationOptions::default()
        .with_max_new_tokens(4)
        .with_eos_token_ids(vec![])
        .with_log_probabilities(3);
    let generated = generator.run(crate::Request::new([1, 7]).with_options(options)).unwrap();
    let request = ScoringRequest::pairs([([1, 7], generated.token_ids)])
        .with_options(ScoringOptions::default().with_log_probabilities(3));
    let score = generator.score(&request).unwrap().remove(0);
    for (scored, generated) in score.tokens.iter().zip(generated.log_probabilities.unwrap()) {
        assert_eq!(scored.best, generated.best);
        assert_eq!(scored.log_probability as f32, generated.chosen);
    }
}

#[test]
fn a_whole_text_is_scored_after_the_begin_token() {
    let generator = generator(hashed());
    let texts: [&[u32]; 2] = [&[1, 9, 8], &[9, 8]];
    let scores = generator.score(&ScoringRequest::texts(texts)).unwrap();
    for score in &scores {
        assert_eq!(score.prompt_tokens, 1);
        assert_close(&log_probabilities(score), &by_definition(&[1], &[9, 8]));
    }
    let mut model = hashed();
    model.generation_config.bos_token_id = Some(30);
    let score = self::generator(model).score(&ScoringRequest::texts([[9, 8]])).unwrap().remove(0);
    assert_close(&log_probabilities(&score), &by_definition(&[30], &[9, 8]));
    let mut model = hashed();
    (model.generation_config.bos_token_id, model.config.bos_token_id) = (None, None);
    let score = self::generator(model).score(&ScoringRequest::texts([[9, 8]])).unwrap().remove(0);
    assert_close(&log_probabilities(&score), &by_definition(&[2], &[9, 8]));
}

#[test]
fn without_a_begin_or_end_token_a_text_needs_a_prompt() {
    let mut model = hashed();
    (model.generation_config.bos_token_id, model.config.bos_token_id) = (None, None);
    model.generation_config.eos_token_ids = Vec::new();
    let error = generator(model).score(&ScoringRequest::texts([[9, 8]])).unwrap_err();
    assert!(matches!(error, Error::Option { option: "prompt", .. }), "{error}");
}

fn ids(generator: &Generator, prompt: &str, continuation: &str) -> (Vec<u32>, Vec<u32>) {
    let encoded = generator
        .encode_pair(0, Some(&prompt.into()), &continuation.into(), &ChatOptions::default())
        .unwrap();
    (encoded.ids[..encoded.prompt_tokens].to_vec(), encoded.continuation().to_vec())
}

#[test]
fn the_continuation_is_what_the_whole_has_after_the_prompt() {
    let generator = with_text();
    let whole = generator.encode("In the beginning God created").unwrap();
    let prompt = generator.encode("In the beginning").unwrap();
    let expected = (prompt.clone(), whole[prompt.len()..].to_vec());
    assert_eq!(ids(&generator, "In the beginning", " God created"), expected);
    // white space at the end of the prompt belongs to the continuation
    assert_eq!(ids(&generator, "In the beginning ", "God created"), expected);
    let line = ids(&generator, "In the beginning\n\x1f ", "God");
    assert_eq!(line.0, prompt);
    assert_eq!([line.0, line.1].concat(), generator.encode("In the beginning\n\x1f God").unwrap());
    // a boundary inside of a token: the prompt keeps its own tokens
    let (split, rest) = ids(&generator, "In the begin", "ning God created");
    assert_eq!(split, generator.encode("In the begin").unwrap());
    assert_eq!(rest, whole[split.len()..]);
}

#[test]
fn an_empty_prompt_is_none() {
    let generator = with_text();
    let whole = generator.encode("In the beginning").unwrap();
    let expected = (whole[..1].to_vec(), whole[1..].to_vec());
    assert_eq!(ids(&generator, "", "In the beginning"), expected);
    let encoded =
        generator.encode_pair(0, None, &"In the beginning".into(), &ChatOptions::default()).unwrap();
    assert_eq!(encoded, Encoded { ids: whole, prompt_tokens: 1 });
    assert_eq!(
        ids(&generator, " ", "beginning"),
        (vec![1], generator.encode(" beginning").unwrap()[1..].to_vec())
    );
}

#[test]
fn a_conversation_is_a_prompt_and_token_ids_follow_any_prompt() {
    let generator = with_text();
    let messages = [ChatMessage::user("Who made the heaven?")];
    let prompt = generator.encode(&messages).unwrap();
    let request = ScoringRequest::pairs([(Prompt::from(&messages), Continuation::from([9, 8]))]);
    assert_eq!(generator.score(&request).unwrap()[0].prompt_tokens, prompt.len());
    let text = generator
        .encode_pair(0, Some(&Prompt::from(&messages)), &" God".into(), &ChatOptions::default())
        .unwrap();
    let tokenizer = generator.model().tokenizer().unwrap();
    let rendered = tokenizer.render_chat(&messages, &ChatOptions::default()).unwrap();
    let whole = tokenizer.encode(&format!("{rendered} God"), false).unwrap();
    assert_eq!(text.ids, whole);
    let after_text =
        generator.encode_pair(0, Some(&"In the".into()), &[9, 8].into(), &ChatOptions::default()).unwrap();
    assert_eq!(after_text.ids, [generator.encode("In the").unwrap(), vec![9, 8]].concat());
}

#[track_caller]
fn refused(generator: &Generator, request: &ScoringRequest) -> Error {
    let error = generator.score(request).unwrap_err();
    assert_eq!(generator.check_scoring(request).unwrap_err().to_string(), error.to_string());
    error
}

#[test]
fn what_cannot_be_scored_is_rejected_by_index_before_anything_is_computed() {
    let mut model = hashed();
    model.config.max_position_embeddings = 4;
    let steps = Arc::clone(&model.steps);
    let generator = generator(model);
    let after_a_good_one = |prompt: Vec<u32>, continuation: Vec<u32>| {
        refused(&generator, &ScoringRequest::pairs([(vec![1], vec![2]), (prompt, continuation)]))
    };
    assert!(matches!(after_a_good_one(vec![], vec![1]), Error::EmptyPrompt { index: 1 }));
    assert!(matches!(after_a_good_one(vec![1], vec![]), Error::EmptyContinuation { index: 1 }));
    let error = after_a_good_one(vec![1; 3], vec![1; 3]);
    assert!(matches!(error, Error::TooLong { index: 1, tokens: 5, limit: 4 }), "{error}");
    let error = after_a_good_one(vec![1], vec![2, 50]);
    assert!(matches!(error, Error::TokenOutOfRange { id: 50, row: 1, column: 2, vocab_size: 50 }), "{error}");
    let error = refused(&generator, &ScoringRequest::pairs([([1], "light")]));
    assert!(matches!(error, Error::Option { option: "continuation", .. }), "{error}");
    let messages: [ChatMessage; 0] = [];
    let error = refused(&generator, &ScoringRequest::continuations(messages, [" God"]));
    assert!(matches!(error, Error::EmptyPrompt { index: 0 }), "{error}");
    for (options, name) in [
        (ScoringOptions::default().with_batch_size(0), "batch_size"),
        (ScoringOptions::default().with_max_step_tokens(0), "max_step_tokens"),
    ] {
        let error = refused(&generator, &ScoringRequest::texts([[5, 6]]).with_options(options));
        assert!(matches!(error, Error::Option { option, .. } if option == name), "{error}");
    }
    assert_eq!(steps.load(Ordering::Relaxed), 0);
    // four positions are read, and the fifth token is scored
    assert_eq!(generator.score(&ScoringRequest::pairs([([1; 3], [1; 2])])).unwrap()[0].tokens.len(), 2);
}

#[test]
fn a_continuation_that_cannot_be_scored_does_not_lose_the_others() {
    let mut model = FakeModel::new(|seen| vec![if seen[0] == 6 { f32::NAN } else { 0.5 }; 50]);
    model.config.vocab_size = 50;
    let pairs = [(vec![5], vec![7]), (vec![], vec![7]), (vec![6], vec![7]), (vec![5, 8], vec![9])];
    let request = ScoringRequest::pairs(pairs);
    assert_eq!((request.len(), request.is_empty()), (4, false));
    let results = generator(model).score_each(&request).unwrap();
    assert_close(&log_probabilities(results[0].as_ref().unwrap()), &[-50_f64.ln()]);
    assert!(matches!(results[1], Err(Error::EmptyPrompt { index: 1 })));
    let error = results[2].as_ref().unwrap_err();
    assert!(matches!(error, Error::Logits { .. }) && error.to_string().contains("sequence 2"), "{error}");
    assert!(results[3].is_ok());
}

#[test]
fn a_failure_of_the_backend_fails_the_call() {
    let mut model = hashed();
    model.fails_at = Some(49);
    let generator = generator(model);
    let request = ScoringRequest::pairs([([1], [2, 3]), ([1], [49, 3])]);
    assert!(matches!(generator.score_each(&request).unwrap_err(), Error::Backend(_)));
}

#[test]
fn a_cancelled_scoring_keeps_what_was_scored() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut model = FakeModel::new(move |seen| {
        if seen.starts_with(&[7, 7]) {
            cancelled.cancel();
        }
        fake::hashed(seen, 50)
    });
    model.config.vocab_size = 50;
    let generator = generator(model);
    let pairs = [(vec![5], vec![6]), (vec![7, 7, 7], vec![8, 8]), (vec![5; 9], vec![6; 3])];
    let options = ScoringOptions::default().with_batch_size(1).with_max_step_tokens(1);
    let request = ScoringRequest::pairs(pairs).with_options(options).with_cancellation(&token);
    let results = generator.score_each(&request).unwrap();
    assert_close(&log_probabilities(results[0].as_ref().unwrap()), &by_definition(&[5], &[6]));
    for result in &results[1..] {
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
    assert!(matches!(generator.score(&request).unwrap_err(), Error::Cancelled));
}

#[test]
fn no_continuation_gives_no_score_and_a_model_without_a_tokenizer_takes_token_ids() {
    assert_eq!(generator(hashed()).score(&ScoringRequest::texts::<Vec<u32>>([])).unwrap(), []);
    let mut model = hashed();
    model.tokenizer = None;
    let generator = generator(model);
    assert!(generator.score(&ScoringRequest::texts([[5, 6]])).is_ok());
    let error = refused(&generator, &ScoringRequest::texts(["In the beginning"]));
    assert!(matches!(error, Error::NoTokenizer), "{error}");
}

#[test]
fn a_token_is_scored_by_the_softmax_of_all_logits() {
    let logits = array![1.0_f32, 3.0, 3.0, f32::NEG_INFINITY];
    let sum = (1_f64.exp() + 2.0 * 3_f64.exp()).ln();
    let of = |token_id| TokenScore::of(logits.view(), token_id, 2).unwrap();
    for (token_id, expected, is_greedy) in
        [(0, 1.0 - sum, false), (1, 3.0 - sum, true), (2, 3.0 - sum, false)]
    {
        let score = of(token_id);
        assert_close(&[score.log_probability], &[expected]);
        assert_eq!((score.token_id, score.is_greedy), (token_id, is_greedy));
        let best: Vec<u32> = score.best.iter().map(|token| token.token_id).collect();
        assert_eq!(best, [1, 2]);
    }
    assert_eq!(of(3).log_probability, f64::NEG_INFINITY);
    assert_eq!(TokenScore::of(logits.view(), 4, 0), None);
    for unusable in [[f32::NAN, 0.0], [f32::NEG_INFINITY; 2], [f32::INFINITY, 0.0]] {
        let score = TokenScore::of(ndarray::aview1(&unusable), 0, 0).unwrap();
        assert!(score.log_probability.is_nan() && !score.is_greedy, "{unusable:?}");
    }
}
