use ndarray::aview1;
use proptest::prelude::*;

use super::super::Multinomial;
use super::*;

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

const NO_LIMITS: SequenceLimits<'_> =
    SequenceLimits { prompt_length: 0, new_tokens: usize::MAX, eos_token_ids: &[] };

/// What a token is chosen from.
pub(in super::super) struct Distribution {
    /// The token of the highest score.
    pub(in super::super) best: u32,
    /// The tokens that are not excluded, by id, with their probabilities.
    pub(in super::super) probabilities: Vec<(u32, f64)>,
}

/// The distribution of the token after `tokens`.
pub(in super::super) fn distribution(
    options: &GenerationOptions,
    logits: &[f32],
    tokens: Tokens<'_>,
    limits: SequenceLimits<'_>,
) -> Distribution {
    let mut sampler = Sampler::new(options);
    let mut state = sampler.start_sequence(0, 0, limits);
    sampler.sample(aview1(logits), tokens, &mut state, None).unwrap();
    // greedy without rules takes the logits as they are
    let scores = if sampler.scores.is_empty() { logits } else { &sampler.scores };
    let (best, highest) = argmax(scores).unwrap();
    let mut kept: Vec<(u32, f64)> = match options.sampling {
        Sampling::Greedy => (0..)
            .zip(scores)
            .filter(|(_, score)| **score > f32::NEG_INFINITY)
            .map(|(id, score)| (id, (f64::from(*score) - f64::from(highest)).exp()))
            .collect(),
        Sampling::Multinomial(_) => {
            sampler.candidates.as_slice().iter().map(|kept| (kept.id, f64::from(kept.weight))).collect()
        }
    };
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    kept.iter_mut().for_each(|(_, weight)| *weight /= total);
    kept.sort_by_key(|(id, _)| *id);
    // of the filters one may exclude the token of the highest score
    let most_probable = |best: (u32, f64), one: &(u32, f64)| if one.1 > best.1 { *one } else { best };
    let best = match options.sampling {
        Sampling::Greedy => best,
        Sampling::Multinomial(_) => kept.iter().fold((best, 0.0), most_probable).0,
    };
    Distribution { best, probabilities: kept }
}

fn draws(options: &GenerationOptions, logits: &[f32], seed: u64, sequence: usize, count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(options);
    let mut state = sampler.start_sequence(seed, sequence, NO_LIMITS);
    let tokens = Tokens { all: &[], prompt_length: 0 };
    (0..count).map(|_| sampler.sample(aview1(logits), tokens, &mut state, None).unwrap()).collect()
}

fn choose(options: &GenerationOptions, logits: &[f32], prompt: &[u32]) -> Option<u32> {
    let mut sampler = Sampler::new(options);
    let limits = SequenceLimits { prompt_length: prompt.len(), ..NO_LIMITS };
    let mut state = sampler.start_sequence(0, 0, limits);
    let tokens = Tokens { all: prompt, prompt_length: prompt.len() };
    sampler.sample(aview1(logits), tokens, &mut state, None).ok()
}

/// What may be drawn, in order, and how probable each is.
fn kept(options: &GenerationOptions, logits: &[f32]) -> Vec<(u32, f64)> {
    let mut sampler = Sampler::new(options);
    let mut state = sampler.start_sequence(0, 0, NO_LIMITS);
    sampler.sample(aview1(logits), Tokens { all: &[], prompt_length: 0 }, &mut state, None).unwrap();
    let total = sampler.candidates.total_weight();
    sampler.candidates.as_slice().iter().map(|kept| (kept.id, f64::from(kept.weight) / total)).collect()
}

/// Softmax of logits over a temperature, best first.
fn ranked_softmax(logits: &[f32], temperature: f32) -> Vec<(u32, f64)> {
    let scaled = |logit: f32| f64::from(logit) / f64::from(temperature);
    let highest = logits.iter().map(|logit| scaled(*logit)).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| (scaled(*logit) - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut ranked: Vec<(u32, f64)> =
        weights.iter().zip(0..).map(|(weight, id)| (id, weight / total)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

/// Distinct logits in multinomial order: k/8 for distinct k, so that ranking is the same in f32 and f64.
fn distinct_logits() -> impl Strategy<Value = Vec<f32>> {
    (2_usize..300).prop_flat_map(|count| {
        Just((0..count).map(|step| step as f32 / 8.0 - 9.0).collect::<Vec<f32>>()).prop_shuffle()
    })
}

#[test]
fn greedy_takes_the_first_of_equal_maxima() {
    assert_eq!(choose(&GenerationOptions::default(), &[1.0, 3.0, 3.0, 2.0], &[]), Some(1));
}

#[test]
fn nan_logits_choose_nothing() {
    for options in [GenerationOptions::default(), multinomial(1.0, Some(2), Some(0.9), Some(0.1))] {
        for logits in [
            &[][..],
            &[0.0, f32::NAN, 1.0],
            &[f32::NAN],
            &[f32::INFINITY, 0.0],
            &[f32::NEG_INFINITY, f32::NEG_INFINITY],
        ] {
            assert_eq!(choose(&options, logits, &[]), None, "{logits:?}");
        }
    }
}

#[test]
fn a_token_of_probability_zero_is_never_drawn() {
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, -1.0, f32::NEG_INFINITY];
    let ids = draws(&multinomial(1.0, Some(4), None, Some(0.0)), &logits, 3, 0, 2000);
    assert!(ids.iter().all(|id| [1, 3].contains(id)));
}

#[test]
fn of_equal_tokens_at_the_border_all_stay_for_top_k_and_the_higher_ids_for_top_p() {
    let ids = |options: &GenerationOptions| -> Vec<u32> {
        kept(options, &[1.0, 2.0, 1.0, 1.0, 0.0]).into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(ids(&multinomial(1.0, Some(3), None, None)), [1, 0, 2, 3]);
    assert_eq!(ids(&multinomial(1.0, None, Some(0.7), None)), [1, 2, 3]);
}

#[test]
fn rules_that_exclude_every_token_are_not_blamed_on_the_logits() {
    let options = GenerationOptions::default().with_suppress_tokens(vec![0, 1, 7]);
    let mut sampler = Sampler::new(&options);
    let mut state = sampler.start_sequence(0, 0, NO_LIMITS);
    let tokens = Tokens { all: &[], prompt_length: 0 };
    let mut choice = |logits: &[f32]| sampler.sample(aview1(logits), tokens, &mut state, None);
    assert_eq!(choice(&[1.0, 2.0]), Err(NoChoice::Excluded));
    assert_eq!(choice(&[1.0, 2.0, 0.5]), Ok(2));
    assert_eq!(choice(&[f32::NAN, 2.0, f32::NAN]), Err(NoChoice::Logits));
}

#[test]
fn the_extremes_of_every_filter_leave_the_best_token() {
    let logits = [0.5, 2.5, -1.0, 2.4];
    for options in [
        multinomial(1.0, Some(1), None, None),
        multinomial(1.0, None, Some(1e-6), None),
        multinomial(1.0, None, None, Some(1.0)),
        multinomial(f32::MIN_POSITIVE, None, None, None),
    ] {
        assert!(draws(&options, &logits, 5, 0, 50).iter().all(|id| *id == 1), "{options:?}");
    }
}

#[test]
fn draws_follow_the_softmax_of_the_logits_over_the_temperature() {
    let logits = [2.0, -1.0, 0.0, 1.5, 0.3, -4.0];
    const COUNT: usize = 20_000;
    for temperature in [0.5, 1.0, 2.0] {
        let ids = draws(&multinomial(temperature, None, None, None), &logits, 11, 0, COUNT);
        for (id, probability) in ranked_softmax(&logits, temperature) {
            let share = ids.iter().filter(|drawn| **drawn == id).count() as f64 / COUNT as f64;
            // four standard deviations of a binomial share
            let bound = 4.0 * (probability * (1.0 - probability) / COUNT as f64).sqrt();
            assert!(
                (share - probability).abs() <= bound,
                "token {id} at {temperature}: {share}, {probability}"
            );
        }
    }
}

#[test]
fn a_seed_gives_the_same_draws_on_every_machine_and_in_every_release() {
    let options = multinomial(1.0, None, None, None);
    let first = draws(&options, &[0.0; 1000], 7, 0, 6);
    // ChaCha8 with key 7 and stream 0, worked out apart from this code
    assert_eq!(first, [764, 465, 5, 301, 386, 336]);
}

#[test]
fn seeds_and_sequences_draw_from_different_streams() {
    let options = multinomial(1.0, None, None, None);
    let first = draws(&options, &[0.0; 1000], 7, 0, 20);
    assert_ne!(first, draws(&options, &[0.0; 1000], 8, 0, 20));
    assert_ne!(first, draws(&options, &[0.0; 1000], 7, 1, 20));
}

#[test]
fn a_repetition_penalty_lowers_positive_and_negative_scores_once_per_token() {
    let penalty =
        |repetition_penalty| GenerationOptions { repetition_penalty, ..GenerationOptions::default() };
    // 3 / 2 < 2, and counted twice it would be below 1
    assert_eq!(choose(&penalty(2.0), &[3.0, 2.0, 1.0], &[0, 0]), Some(1));
    assert_eq!(choose(&penalty(2.0), &[3.0, 1.4, 1.0], &[0, 0]), Some(0));
    assert_eq!(choose(&penalty(2.0), &[-1.0, -1.5, -3.0], &[0]), Some(1));
    assert_eq!(choose(&penalty(0.5), &[3.0, 2.0, 1.0], &[1]), Some(1));
    assert_eq!(choose(&penalty(2.0), &[3.0, 2.0, 1.0], &[9]), Some(0), "an id without a logit is ignored");
}

#[test]
fn a_chosen_token_is_penalised_from_then_on() {
    let options = GenerationOptions { repetition_penalty: 2.0, ..GenerationOptions::default() };
    let mut sampler = Sampler::new(&options);
    let mut state = sampler.start_sequence(0, 0, NO_LIMITS);
    let mut all = Vec::new();
    for expected in [0, 1, 0] {
        let tokens = Tokens { all: &all, prompt_length: 0 };
        assert_eq!(sampler.sample(aview1(&[3.0, 2.0, 1.0]), tokens, &mut state, None), Ok(expected));
        all.push(expected);
    }
}

proptest! {
    #[test]
    fn top_k_keeps_exactly_the_k_best(logits in distinct_logits(), top_k in 1_usize..400) {
        let kept = kept(&multinomial(1.0, Some(top_k), None, None), &logits);
        let mut ids: Vec<u32> = kept.into_iter().map(|(id, _)| id).collect();
        let mut expected: Vec<u32> =
            ranked_softmax(&logits, 1.0).into_iter().take(top_k).map(|(id, _)| id).collect();
        ids.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(ids, expected);
    }

    #[test]
    fn top_p_keeps_the_fewest_best_that_reach_the_mass(
        logits in distinct_logits(), top_p in 0.01_f32..1.0, temperature in 0.3_f32..20.0,
    ) {
        const ROUNDING: f64 = 1e-6;
        let ranked = ranked_softmax(&logits, temperature);
        let ids: Vec<u32> =
            kept(&multinomial(temperature, None, Some(top_p), None), &logits).into_iter().map(|(id, _)| id).collect();
        let expected: Vec<u32> = ranked.iter().take(ids.len()).map(|(id, _)| *id).collect();
        prop_assert_eq!(&ids, &expected);
        let mass = |count: usize| ranked.iter().take(count).map(|(_, p)| p).sum::<f64>();
        prop_assert!(mass(ids.len()) >= f64::from(top_p) - ROUNDING);
        prop_assert!(mass(ids.len() - 1) < f64::from(top_p) + ROUNDING);
    }

    #[test]
    fn min_p_keeps_what_is_probable_next_to_the_best(logits in distinct_logits(), min_p in 0.0_f32..=1.0) {
        const ROUNDING: f64 = 1e-5;
        let ids: Vec<u32> =
            kept(&multinomial(1.0, None, None, Some(min_p)), &logits).into_iter().map(|(id, _)| id).collect();
        let ranked = ranked_softmax(&logits, 1.0);
        for (id, probability) in &ranked {
            let share = probability / ranked[0].1;
            if (share - f64::from(min_p)).abs() > ROUNDING * share {
                prop_assert_eq!(ids.contains(id), share > f64::from(min_p), "{} has {}", id, share);
            }
        }
    }

    #[test]
    fn filters_together_act_in_transformers_order(
        logits in distinct_logits(), top_k in 1_usize..300, top_p in 0.05_f32..1.0, min_p in 0.0_f32..0.3,
    ) {
        let options = multinomial(1.5, Some(top_k), Some(top_p), Some(min_p));
        let mut expected = ranked_softmax(&logits, 1.5);
        expected.truncate(top_k);
        let total: f64 = expected.iter().map(|(_, p)| p).sum();
        let mut before = 0.0;
        let mut undecided = false;
        expected.retain(|(_, probability)| {
            let share = before / total;
            undecided |= (share - f64::from(top_p)).abs() < 1e-5;
            before += probability;
            share < f64::from(top_p)
        });
        let best = expected[0].1;
        expected.retain(|(_, probability)| {
            undecided |= (probability / best - f64::from(min_p)).abs() < 1e-5;
            probability / best >= f64::from(min_p)
        });
        prop_assume!(!undecided);
        let ids: Vec<u32> = kept(&options, &logits).into_iter().map(|(id, _)| id).collect();
        prop_assert_eq!(ids, expected.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    }
}
