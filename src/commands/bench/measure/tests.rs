use super::*;

#[test]
fn overhead_is_the_share_outside_the_backend() {
    let step = |whole, backend| StepTime {
        whole: Duration::from_secs(whole),
        backend: Some(Duration::from_secs(backend)),
    };
    assert_eq!(overhead(&[step(8, 7), step(8, 6), step(8, 4)]), Some(0.25));
}

#[test]
fn overhead_is_unknown_if_the_backend_reports_no_time() {
    let step = StepTime { whole: Duration::from_millis(1), backend: None };
    assert_eq!(overhead(&[step]), None);
}
