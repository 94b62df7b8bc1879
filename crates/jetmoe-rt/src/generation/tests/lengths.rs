//! Limits of length, and rules that depend on them.

use super::*;

/// A model that ends every sequence at once.
fn ending() -> Generator {
    generator(FakeModel::scripted(0, vec![]))
}

fn run(generator: &Generator, prompt: &[u32], options: &GenerationOptions) -> Result<Completion> {
    generator.run(request([prompt], options))
}

#[test]
fn a_sequence_does_not_end_before_its_least_length() {
    let generator = ending();
    let length = |options: &GenerationOptions| {
        let result = run(&generator, &[5, 6, 7], options).unwrap();
        assert_eq!(result.finish_reason, FinishReason::Eos);
        assert!(!result.token_ids[..result.token_ids.len() - 1].contains(&EOS));
        result.token_ids.len()
    };
    let options = GenerationOptions::default();
    assert_eq!(length(&options), 1);
    assert_eq!(length(&options.clone().with_min_new_tokens(4)), 5);
    assert_eq!(length(&options.clone().with_min_length(5)), 3);
    assert_eq!(length(&options.with_min_length(9).with_min_new_tokens(1)), 2);
}

#[test]
fn the_greatest_length_counts_the_prompt_unless_new_tokens_are_given() {
    let generator = generator(hashed());
    let options = GenerationOptions { eos_token_ids: Some(vec![]), ..GenerationOptions::default() };
    let limited = GenerationOptions { max_new_tokens: usize::MAX, ..options }.with_max_length(7);
    let result = run(&generator, &[5, 6, 7], &limited).unwrap();
    assert_eq!((result.token_ids.len(), result.finish_reason), (4, FinishReason::Length));
    let error = run(&generator, &[5; 7], &limited).unwrap_err();
    assert!(matches!(error, Error::MaxLength { tokens: 7, limit: 7 }), "{error}");
    let result = run(&generator, &[5; 7], &limited.with_max_new_tokens(2)).unwrap();
    assert_eq!((result.token_ids.len(), result.finish_reason), (2, FinishReason::Length));
}

#[test]
fn a_forced_token_is_the_last_one_of_the_length() {
    let generator = generator(hashed());
    let options = at_most(4).with_forced_eos_token_ids(vec![30]);
    let result = run(&generator, &[5, 6, 7], &options).unwrap();
    assert_eq!(result.token_ids.last(), Some(&30));
    assert_eq!(result.finish_reason, FinishReason::Length);
}

#[test]
fn rules_that_leave_no_token_are_the_caller_s_mistake() {
    let vocab_size = u32::try_from(FakeModel::scripted(0, vec![]).config.vocab_size).unwrap();
    let options = GenerationOptions::default().with_suppress_tokens((0..vocab_size).collect());
    let error = run(&ending(), &[5], &options).unwrap_err();
    assert!(matches!(error, Error::NoTokenLeft { sequence: 0 }), "{error}");
    assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
}

#[test]
fn speculation_follows_the_rules() {
    let options = |prompt_lookup| GenerationOptions {
        eos_token_ids: Some(vec![]),
        prompt_lookup,
        ..at_most(24).with_no_repeat_ngram_size(3).with_repetition_penalty(1.3).with_frequency_penalty(0.2)
    };
    let prompt = [5, 6, 5, 6, 5, 6];
    let plain = run(&generator(hashed()), &prompt, &options(None)).unwrap();
    let drafted = run(&generator(hashed()), &prompt, &options(Some(PromptLookup::default()))).unwrap();
    assert_eq!(plain.token_ids, drafted.token_ids);
}
