//! Errors in the form of the protocol.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::{IntoResponses, ToSchema};

use crate::error::ApiError;
use crate::routes::errors::responses_with;

/// The body of a response with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ProtocolError {
    /// The problem, and what to do about it.
    error: String,
}

impl From<&ApiError> for ProtocolError {
    fn from(error: &ApiError) -> Self {
        let message = error.message();
        let text = match error.body().error.advice {
            Some(advice) => format!("{message}; {advice}"),
            None => message.to_owned(),
        };
        ProtocolError { error: text }
    }
}

impl ProtocolError {
    pub(super) fn to_json(&self) -> String {
        json!({ "error": self.error }).to_string()
    }
}

/// The errors that every route of the protocol can answer with, in [`ProtocolError`]'s form.
pub(crate) struct ProtocolErrors;

impl IntoResponses for ProtocolErrors {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        responses_with::<ProtocolError>()
    }
}

/// Gives errors of the routes of the protocol its form, with the same status and headers.
pub(crate) async fn protocol_errors(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_protocol = path == "/v2" || path.starts_with("/v2/");
    let response = next.run(request).await;
    match response.extensions().get::<ApiError>().map(ProtocolError::from) {
        Some(error) if is_protocol => in_form(response, &error),
        _ => response,
    }
}

fn in_form(response: Response, error: &ProtocolError) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(error.to_json()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
    use axum::response::IntoResponse;

    use super::{ApiError, ProtocolError, in_form};

    #[tokio::test]
    async fn an_error_keeps_its_status_and_headers() {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", "3 requests wait already")
            .with_advice("repeat it later")
            .with_retry_after(Duration::from_secs(2));
        let form = ProtocolError::from(&error);
        let response = in_form(error.into_response(), &form);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(&body[..], br#"{"error":"3 requests wait already; repeat it later"}"#);
    }
}
