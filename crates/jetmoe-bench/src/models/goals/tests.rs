use super::super::results::tests::raw;
use super::*;

#[test]
fn goals_compare_times_and_say_which_are_missed() {
    let raw = raw();
    let goals = goals(&Rounds { raw: &raw });
    let measured: Vec<Option<f64>> = goals.iter().map(|goal| goal.measured).collect();
    let expected = [
        Some(3.0),
        None,
        None,
        None,
        Some(3.0),
        None,
        None,
        Some(2.0),
        Some(2.0),
        Some(0.01),
        Some(1.0),
        None,
        Some(8090.0 / 2030.0),
        Some(0.4),
        None,
    ];
    assert_eq!(measured, expected);
    let reached: Vec<Option<bool>> = goals.iter().map(Goal::is_reached).collect();
    assert_eq!(
        reached,
        [
            Some(false),
            None,
            None,
            None,
            Some(true),
            None,
            None,
            None,
            Some(true),
            Some(true),
            Some(false),
            None,
            None,
            Some(false),
            None
        ]
    );
}
