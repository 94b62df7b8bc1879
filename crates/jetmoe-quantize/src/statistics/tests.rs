use super::*;

#[test]
fn moments_are_sums_of_products_over_all_rows_however_they_came() {
    let mut statistics = InputStatistics::new(2);
    statistics.add(&[1.0, 2.0, 3.0, -4.0]);
    statistics.add(&[]);
    statistics.add(&[0.0, 5.0]);
    assert_eq!((statistics.count(), statistics.inputs()), (3, 2));
    assert_eq!(statistics.moment(0, 0), 1.0 + 9.0);
    assert_eq!(statistics.moment(0, 1), 2.0 - 12.0);
    assert_eq!(statistics.moment(1, 0), 2.0 - 12.0);
    assert_eq!(statistics.moment(1, 1), 4.0 + 16.0 + 25.0);
    assert_eq!(statistics.mean_square(), 27.5);
}

#[test]
#[should_panic(expected = "whole rows")]
fn half_a_row_is_refused() {
    InputStatistics::new(2).add(&[1.0, 2.0, 3.0]);
}
