use super::*;
use crate::Error;

fn refused(options: GenerationOptions) -> (&'static str, String) {
    match options.validate() {
        Err(Error::Option { option, found, .. }) => (option, found),
        other => panic!("expected a refused option, got {other:?}"),
    }
}

fn multinomial(
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
) -> GenerationOptions {
    GenerationOptions {
        sampling: Multinomial { temperature, top_k, top_p, min_p, ..Multinomial::default() }.into(),
        ..GenerationOptions::default()
    }
}

#[test]
fn the_defaults_are_valid() {
    GenerationOptions::default().validate().unwrap();
    multinomial(1.0, Some(1), Some(1.0), Some(0.0)).validate().unwrap();
    multinomial(1e-3, None, None, Some(1.0)).validate().unwrap();
}

#[test]
fn an_invalid_value_is_rejected_by_name() {
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(refused(multinomial(temperature, None, None, None)).0, "temperature");
    }
    for top_p in [1.5, -0.1, f32::NAN] {
        assert_eq!(refused(multinomial(1.0, None, Some(top_p), None)), ("top_p", top_p.to_string()));
    }
    for min_p in [-0.1, 1.1, f32::NAN] {
        assert_eq!(refused(multinomial(1.0, None, None, Some(min_p))).0, "min_p");
    }
    assert_eq!(refused(multinomial(1.0, Some(0), None, None)), ("top_k", "0".to_owned()));
    for repetition_penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let options = GenerationOptions { repetition_penalty, ..GenerationOptions::default() };
        assert_eq!(refused(options).0, "repetition_penalty");
    }
    for bias in [f32::NAN, f32::INFINITY] {
        let options = GenerationOptions::default().with_sequence_bias(vec![(vec![1], 2.0), (vec![3], bias)]);
        assert_eq!(refused(options), ("sequence_bias", bias.to_string()));
    }
    GenerationOptions::default().with_sequence_bias(vec![(vec![3], f32::NEG_INFINITY)]).validate().unwrap();
    for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let options = GenerationOptions::default().with_exponential_decay_length_penalty((1, factor));
        assert_eq!(refused(options).0, "exponential_decay_length_penalty");
    }
    for penalty in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let options = GenerationOptions { presence_penalty: penalty, ..GenerationOptions::default() };
        assert_eq!(refused(options).0, "presence_penalty");
        let options = GenerationOptions { frequency_penalty: penalty, ..GenerationOptions::default() };
        assert_eq!(refused(options).0, "frequency_penalty");
    }
    let options = GenerationOptions { max_new_tokens: 0, ..GenerationOptions::default() };
    assert_eq!(refused(options).0, "max_new_tokens");
    let options = GenerationOptions { prefill_chunk: 0, ..GenerationOptions::default() };
    assert_eq!(refused(options).0, "prefill_chunk");
    let lookup = |draft_tokens, ngram_tokens| GenerationOptions {
        prompt_lookup: Some(PromptLookup { draft_tokens, ngram_tokens }),
        ..GenerationOptions::default()
    };
    assert_eq!(refused(lookup(0, 2)).0, "draft_tokens");
    assert_eq!(refused(lookup(1, 0)).0, "ngram_tokens");
    let options = GenerationOptions { stop: vec!["a".into(), String::new()], ..GenerationOptions::default() };
    assert_eq!(refused(options).0, "stop");
}

#[test]
fn a_checkpoint_without_do_sample_is_greedy_whatever_else_it_says() {
    let mut config = GenerationConfig::default();
    (config.temperature, config.top_p) = (Some(0.6), Some(0.9));
    (config.repetition_penalty, config.max_new_tokens) = (Some(1.2), Some(9));
    let options = GenerationOptions::from_config(&config);
    assert_eq!(options.sampling, Sampling::Greedy);
    assert_eq!(options.repetition_penalty, 1.2);
    assert_eq!(options.max_new_tokens, 9);
}

#[test]
fn a_sampling_checkpoint_fills_in_transformers_defaults() {
    let mut config = GenerationConfig::default();
    config.do_sample = Some(true);
    assert_eq!(
        GenerationOptions::from_config(&config).sampling,
        Sampling::from(Multinomial::default().with_top_k(50))
    );
    (config.temperature, config.top_k) = (Some(0.7), Some(0));
    (config.top_p, config.min_p) = (Some(0.9), Some(0.05));
    assert_eq!(
        GenerationOptions::from_config(&config).sampling,
        Sampling::from(Multinomial::new(0.7).with_top_p(0.9).with_min_p(0.05))
    );
}
