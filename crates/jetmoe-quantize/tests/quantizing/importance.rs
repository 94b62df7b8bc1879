//! The search where some weights count more than others.

use jetmoe_quantize::{Bits, Rounding, Scales, Scheme};
use proptest::prelude::*;

use crate::{Quantized, any_scheme, normal_weights, row};

fn search(scheme: Scheme, weights: &[f32], importance: &[f32]) -> Quantized {
    Quantized::weighed(scheme, Rounding::Search, weights, Some(importance)).unwrap()
}

fn four_bits(zero_points: bool) -> Scheme {
    Scheme { bits: Bits::Four, group_size: 32, zero_points, scales: Scales::Float32 }
}

proptest! {
    #[test]
    fn weights_that_count_equally_are_searched_as_without_importance(
        scheme in any_scheme(),
        weights in row(300),
        power in -4..5,
    ) {
        let importance = vec![2.0_f32.powi(power); weights.len()];
        prop_assert_eq!(search(scheme, &weights, &importance), Quantized::search(scheme, &weights));
    }

    #[test]
    fn the_search_never_loses_more_of_what_counts_than_rounding(
        zero_points: bool,
        weighed in proptest::collection::vec((-1.0_f32..1.0, 0.0_f32..10.0), 1..33),
    ) {
        let (weights, importance): (Vec<f32>, Vec<f32>) = weighed.into_iter().unzip();
        let scheme = four_bits(zero_points);
        let found = search(scheme, &weights, &importance).weighed_error(&weights, &importance);
        let rounded = Quantized::nearest(scheme, &weights).weighed_error(&weights, &importance);
        prop_assert!(found <= rounded * (1.0 + 1e-5) + 1e-10, "{} instead of {}", found, rounded);
    }

    /// What nobody multiplies with anything has no best scale, and keeps the one that reaches it.
    #[test]
    fn a_group_of_which_nothing_counts_is_rounded(scheme in any_scheme(), weights in row(200)) {
        let importance = vec![0.0; weights.len()];
        prop_assert_eq!(search(scheme, &weights, &importance), Quantized::nearest(scheme, &weights));
    }
}

#[test]
fn importance_lowers_the_error_where_it_lies() {
    let weights = normal_weights(4096, 5);
    // every eighth weight counts a hundred times as much
    let importance: Vec<f32> = (0..4096).map(|index| if index % 8 == 0 { 100.0 } else { 1.0 }).collect();
    for zero_points in [false, true] {
        let scheme = four_bits(zero_points);
        let with = search(scheme, &weights, &importance).weighed_error(&weights, &importance);
        let without = Quantized::search(scheme, &weights).weighed_error(&weights, &importance);
        println!("zero points {zero_points}: {:.3} of the loss", with / without);
        assert!(with < 0.9 * without, "{with} instead of {without}");
    }
}
