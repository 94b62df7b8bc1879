//! Log-probabilities of whole generations; `log_probabilities/tests.rs` tests those of one token.

use super::*;

#[test]
fn every_token_has_the_models_own_distribution_whatever_the_options_are() {
    let generator = generator(hashed());
    let options = GenerationOptions {
        sampling: Multinomial::new(0.5).with_top_k(3).into(),
        repetition_penalty: 1.5,
        log_probabilities: Some(2),
        eos_token_ids: Some(vec![]),
        ..multinomial(5)
    };
    let mut streamed = Vec::new();
    let completions = generator.for_each(request([PROMPTS[0], PROMPTS[2]], &options), |event| {
        streamed.extend(event.token.map(|token| (event.sequence, token.log_probabilities.unwrap())));
        ControlFlow::Continue(())
    });
    for (sequence, completion) in completions.unwrap().iter().enumerate() {
        let prompt = [PROMPTS[0], PROMPTS[2]][sequence];
        let log_probabilities = completion.log_probabilities.as_ref().unwrap();
        assert_eq!(log_probabilities.len(), completion.token_ids.len());
        let own = streamed.iter().filter(|(index, _)| *index == sequence).map(|(_, own)| own);
        assert!(own.eq(log_probabilities));
        for (index, found) in log_probabilities.iter().enumerate() {
            let logits = fake::hashed(&[prompt, &completion.token_ids[..index]].concat(), 50);
            let expected =
                LogProbabilities::of(ndarray::aview1(&logits), completion.token_ids[index], 2).unwrap();
            assert_eq!(*found, expected);
            assert_eq!(found.best.len(), 2);
        }
    }
}

#[test]
fn drafted_tokens_have_them_too() {
    let options = GenerationOptions { log_probabilities: Some(1), ..at_most(4) };
    let drafting = GenerationOptions {
        prompt_lookup: Some(PromptLookup { draft_tokens: 3, ngram_tokens: 1 }),
        ..options.clone()
    };
    let model = || generator(FakeModel::scripted(5, vec![8, 9, 5, 6]));
    let [plain, drafted] = [options, drafting]
        .map(|options| run_batch(&model(), [[7, 8, 9, 5, 7]], &options).unwrap().remove(0));
    assert!(drafted.statistics.accepted_tokens > 0);
    assert_eq!(plain.log_probabilities, drafted.log_probabilities);
}
