use super::*;

#[test]
fn quartiles_are_interpolated() {
    let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
    assert_eq!(spread, Spread { lower_quartile: 1.75, median: 2.5, upper_quartile: 3.25 });
}

#[test]
fn one_measurement_has_no_spread() {
    assert_eq!(Spread::of(vec![7.0]), Spread { lower_quartile: 7.0, median: 7.0, upper_quartile: 7.0 });
}

#[test]
fn a_rate_swaps_the_quartiles() {
    let rate = Spread { lower_quartile: 1.0, median: 2.0, upper_quartile: 4.0 }.rate(8.0);
    assert_eq!(rate, Spread { lower_quartile: 2.0, median: 4.0, upper_quartile: 8.0 });
}
