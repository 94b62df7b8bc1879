//! Tests of the errors.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use jetmoe_rt::Error;

use super::ApiError;
use super::model_error::without_paths;
use crate::engine::Refusal;

#[test]
fn a_path_is_reduced_to_its_last_part() {
    let text = "cannot read /srv/models/a/weights.onnx_data: it is shorter (C:\\models\\x.json), 1/2";
    assert_eq!(without_paths(text), "cannot read weights.onnx_data: it is shorter (x.json), 1/2");
}

#[test]
fn an_option_is_named_as_the_field_of_the_request() {
    let error = Error::Option { option: "max_new_tokens", found: "0".to_owned(), expected: "at least 1" };
    let error = ApiError::from(error);
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    assert_eq!(error.param(), Some("max_tokens"));
    assert_eq!(error.message(), "max_tokens is 0, expected at least 1");
}

#[test]
fn a_problem_and_its_advice_are_separate() {
    let body = ApiError::from(Error::MaxLength { tokens: 9, limit: 9 }).body();
    assert!(!body.error.message.contains('\n'));
    assert!(body.error.advice.unwrap().starts_with("shorten"));
}

#[test]
fn a_full_queue_says_when_to_repeat() {
    let refusal = Refusal::QueueFull { queued: 3, retry_after: Duration::from_millis(200) };
    let response = ApiError::from(refusal).into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
}
