use ndarray::aview1;

use super::*;

fn best(found: &LogProbabilities) -> Vec<u32> {
    found.best.iter().map(|token| token.token_id).collect()
}

#[test]
fn they_are_the_logarithm_of_the_softmax() {
    let probabilities = [0.125_f32, 0.5, 0.25, 0.125];
    for offset in [0.0, 80.0, -1e4] {
        let logits = probabilities.map(|probability| probability.ln() + offset);
        let found = LogProbabilities::of(aview1(&logits), 3, 4).unwrap();
        assert_eq!(best(&found), [1, 2, 0, 3], "ties by the lower id");
        let tolerance = 1e-6 + offset.abs() * f32::EPSILON;
        assert!((found.chosen - probabilities[3].ln()).abs() <= tolerance, "{found:?}");
        for token in &found.best {
            let expected = probabilities[token.token_id as usize].ln();
            assert!((token.log_probability - expected).abs() <= tolerance, "{found:?}");
        }
    }
}

#[test]
fn as_many_as_requested_are_the_best() {
    let logits = [0.0, 3.0, -2.0, 3.0, 1.0];
    for (count, expected) in [(0, &[][..]), (1, &[1]), (2, &[1, 3]), (3, &[1, 3, 4]), (99, &[1, 3, 4, 0, 2])]
    {
        assert_eq!(best(&LogProbabilities::of(aview1(&logits), 2, count).unwrap()), expected);
    }
    assert_eq!(LogProbabilities::of(aview1(&logits), 5, 1), None, "there is no token 5");
}

#[test]
fn many_tokens_and_impossible_ones_have_finite_sums() {
    let mut logits = vec![7.0_f32; 100_000];
    logits[3] = f32::NEG_INFINITY;
    let found = LogProbabilities::of(aview1(&logits), 9, 0).unwrap();
    assert!((found.chosen + 99_999_f32.ln()).abs() < 1e-5, "{found:?}");
    let found = LogProbabilities::of(aview1(&[0.0, f32::NEG_INFINITY]), 1, 2).unwrap();
    assert_eq!((found.chosen, found.best[0].log_probability), (f32::NEG_INFINITY, 0.0));
}
