//! A sampler for a program's own steps gives what the generator gives.

use ndarray::Array2;

use super::*;
use crate::TokenBatch;

/// Continues prompts in one session, whose slots are freed and taken by the next prompt.
fn continue_in_slots(generator: &Generator, requests: &[(&[u32], GenerationOptions)]) -> Vec<Completion> {
    const SLOTS: usize = 2;
    let mut waiting = requests.iter().enumerate();
    let mut slots: Vec<Option<(usize, SequenceSampler, Vec<u32>)>> = (0..SLOTS).map(|_| None).collect();
    let mut session = generator.model().session().unwrap();
    let mut completions = Vec::new();
    loop {
        for (slot, entry) in slots.iter_mut().enumerate().filter(|(_, entry)| entry.is_none()) {
            let Some((index, (prompt, options))) = waiting.next() else { continue };
            let sampler = generator.sampler(*prompt, options).unwrap();
            assert_eq!(sampler.prompt(), *prompt);
            if session.past_length() > 0 {
                session.clear_sequence(slot).unwrap();
            }
            *entry = Some((index, sampler, prompt.to_vec()));
        }
        let Some(width) = slots.iter().flatten().map(|(_, _, tokens)| tokens.len()).max() else { break };
        let token = |row: usize, column: usize| {
            let (_, _, tokens) = slots[row].as_ref()?;
            tokens.get((column + tokens.len()).checked_sub(width)?)
        };
        let shape = (SLOTS, width);
        let ids = Array2::from_shape_fn(shape, |(row, column)| token(row, column).copied().unwrap_or(0));
        let mask = Array2::from_shape_fn(shape, |(row, column)| token(row, column).is_some());
        let output = session.step(&TokenBatch::masked(ids, mask).unwrap()).unwrap();
        for (row, slot) in slots.iter_mut().enumerate() {
            let Some((_, sampler, tokens)) = slot else { continue };
            let event = sampler.sample(output.last_logits(row).unwrap()).unwrap();
            *tokens = vec![event.token.unwrap().token_id];
            assert_eq!(sampler.token_ids().last(), tokens.first());
            if event.finish_reason.is_some() {
                completions.extend(slot.take().map(|(index, sampler, _)| (index, sampler.finish().unwrap())));
            }
        }
    }
    completions.sort_by_key(|(index, _)| *index);
    completions.into_iter().map(|(_, completion)| completion).collect()
}

#[test]
fn continuous_batching_gives_what_the_generator_gives() {
    let generator = generator(hashed());
    let options = [
        at_most(9),
        multinomial(3).with_repetition_penalty(1.3).with_log_probabilities(2),
        GenerationOptions { eos_token_ids: Some(vec![9, 30]), ..at_most(20) },
        multinomial(4),
        GenerationOptions { no_repeat_ngram_size: 2, min_new_tokens: 5, ..at_most(12) },
        at_most(1),
    ];
    let requests: Vec<(&[u32], GenerationOptions)> = PROMPTS.into_iter().zip(options).collect();
    let found = continue_in_slots(&generator, &requests);
    assert_eq!(found.len(), requests.len());
    for (found, (prompt, options)) in found.iter().zip(&requests) {
        let expected = generator.run(request([*prompt], options)).unwrap();
        assert_eq!(outcome(found), outcome(&expected));
        assert_eq!(found.log_probabilities, expected.log_probabilities);
        assert_eq!(found.timings, Timings::default());
    }
}

#[test]
fn text_and_stop_strings_are_those_of_the_generator() {
    let tokenizer = fake::tokenizer();
    let prompt = tokenizer.encode("In the beginning", true).unwrap();
    let all = tokenizer.encode("In the beginning of the reign of king", true).unwrap();
    let script = all[prompt.len()..].to_vec();
    let generator = Generator::new(&FakeModel::scripted(prompt.len(), script.clone()).load()).unwrap();
    let options = GenerationOptions::default().with_stop([" reign"]);
    let mut sampler = generator.sampler("In the beginning", &options).unwrap();
    let mut text = String::new();
    for token in script {
        if sampler.finish_reason().is_some() {
            break;
        }
        let logits = fake::one_hot(token, 2048);
        text += &sampler.sample(ndarray::aview1(&logits)).unwrap().text;
    }
    assert_eq!((text.as_str(), sampler.finish_reason()), (" of the", Some(FinishReason::StopString)));
    let error = sampler.sample(ndarray::aview1(&fake::one_hot(5, 2048))).unwrap_err();
    assert!(error.to_string().contains("ended by stop-string"), "{error}");
    assert_eq!(sampler.finish().unwrap().text, " of the");
}

#[test]
fn what_cannot_be_sampled_is_rejected() {
    let generator = generator(hashed());
    let mut sampler = generator.sampler([5, 6], &at_most(3)).unwrap();
    let error = sampler.sample(ndarray::aview1(&[0.0; 49])).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let error = sampler.sample(ndarray::aview1(&[f32::NAN; 50])).unwrap_err();
    assert!(matches!(error, Error::Logits { .. }), "{error}");
    let completion = sampler.finish().unwrap();
    assert_eq!((completion.token_ids.len(), completion.finish_reason), (0, FinishReason::Cancelled));
    let error = generator.sampler([50], &at_most(3)).unwrap_err();
    assert!(matches!(error, Error::TokenOutOfRange { .. }), "{error}");
    let error = generator.sampler([5], &at_most(0)).unwrap_err();
    assert!(matches!(error, Error::Option { option: "max_new_tokens", .. }), "{error}");
}

#[test]
fn a_token_that_is_not_allowed_is_not_chosen_and_keeps_its_probability() {
    let generator = generator(hashed());
    let logits: Vec<f32> = (0..50_u8).map(f32::from).collect();
    let logits = ndarray::aview1(&logits);
    let options = GenerationOptions { log_probabilities: Some(2), ..at_most(9) };
    let mut free = generator.sampler([5, 6], &options).unwrap();
    let mut bound = generator.sampler([5, 6], &options).unwrap();
    let first = |event: Event| event.token.unwrap();
    let free = first(free.sample(logits).unwrap());
    let bound_to = first(bound.sample_allowed(logits, |id| id < 40).unwrap());
    assert_eq!((free.token_id, bound_to.token_id), (49, 39));
    let (free, found) = (free.log_probabilities.unwrap(), bound_to.log_probabilities.unwrap());
    assert_eq!(free.best, found.best, "the distribution is the model's own");
    assert!((free.chosen - found.chosen - 10.0).abs() < 1e-4);
    let again = first(bound.sample_allowed(logits, |_| true).unwrap());
    assert_eq!(again.token_id, 49);
    let error = bound.sample_allowed(logits, |_| false).unwrap_err();
    assert!(matches!(error, Error::NoTokenLeft { .. }), "{error}");
}

#[test]
fn infinities_that_a_rule_replaces_do_not_allow_a_token() {
    let generator = generator(hashed());
    let options = GenerationOptions { remove_invalid_values: true, ..at_most(9) };
    let mut sampler = generator.sampler([5, 6], &options).unwrap();
    let logits = [f32::NEG_INFINITY; 50];
    let event = sampler.sample_allowed(ndarray::aview1(&logits), |id| id == 17).unwrap();
    assert_eq!(event.token.unwrap().token_id, 17);
}

#[test]
fn draws_are_from_allowed_tokens_with_the_seed_of_the_sequence() {
    let generator = generator(hashed());
    let draw = || {
        let mut sampler = generator.sampler([5, 6], &multinomial(3)).unwrap();
        let flat = [0.0; 50];
        let next = |_| sampler.sample_allowed(ndarray::aview1(&flat), |id| id % 7 == 0).unwrap();
        (0..3).map(next).map(|event| event.token.unwrap().token_id).collect::<Vec<_>>()
    };
    let drawn = draw();
    assert_eq!(drawn, draw());
    assert!(drawn.iter().all(|id| id % 7 == 0), "{drawn:?}");
}

#[test]
fn a_sequence_ends_for_any_reason_with_the_text_that_was_held_back() {
    let tokenizer = fake::tokenizer();
    let prompt = tokenizer.encode("In the beginning", true).unwrap();
    let all = tokenizer.encode("In the beginning of the", true).unwrap();
    let generator = Generator::new(&FakeModel::scripted(prompt.len(), Vec::new()).load()).unwrap();
    let options = GenerationOptions::default().with_stop([" the reign"]);
    let mut sampler = generator.sampler("In the beginning", &options).unwrap();
    let mut text = String::new();
    for token in &all[prompt.len()..] {
        text += &sampler.sample(ndarray::aview1(&fake::one_hot(*token, 2048))).unwrap().text;
    }
    let end = sampler.end(FinishReason::Deadline).unwrap();
    assert_eq!((text.as_str(), end.text.as_str()), (" of", " the"));
    assert_eq!((end.token, end.finish_reason), (None, Some(FinishReason::Deadline)));
    let again = sampler.end(FinishReason::Cancelled).unwrap();
    assert_eq!((again.text.as_str(), again.finish_reason), ("", Some(FinishReason::Deadline)));
    assert_eq!(sampler.finish().unwrap().text, " of the");
}

#[test]
fn fewer_positions_end_a_continuation_and_reject_a_longer_prompt() {
    let model = hashed().load().with_max_positions(5);
    let generator = Generator::new(&model).unwrap();
    let completion = generator.run(request([[7, 8, 9].as_slice()], &at_most(20))).unwrap();
    assert_eq!((completion.token_ids.len(), completion.finish_reason), (2, FinishReason::ContextFull));
    let error = generator.sampler([7; 6], &at_most(1)).unwrap_err();
    assert!(matches!(error, Error::TooLong { limit: 5, .. }), "{error}");
    assert_eq!(model.with_max_positions(1000).config().max_position_embeddings, 5);
}
