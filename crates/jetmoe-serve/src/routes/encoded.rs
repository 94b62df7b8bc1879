//! Responses in JSON that are encoded where they are computed, because large ones take long.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{ApiError, ApiResult};

/// A body in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedJson(Vec<u8>);

impl EncodedJson {
    /// Encodes a value.
    ///
    /// # Errors
    /// Status 500 for a value that JSON does not have.
    pub(crate) fn new<T: Serialize>(value: &T) -> ApiResult<Self> {
        serde_json::to_vec(value).map(EncodedJson).map_err(|error| {
            tracing::error!(%error, "a response is no JSON");
            ApiError::internal()
        })
    }
}

impl IntoResponse for EncodedJson {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}
