//! Errors of the server, and of requests in the form of OpenAI's API.

mod model_error;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::model_error::without_paths;
use crate::auth::KeysError;
use crate::config::ConfigError;
use crate::engine::{JobError, Refusal};
use crate::registry::RegistryError;

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file of keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A model cannot be served.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// An origin that no header can hold.
    #[error("cors.origins has {0:?}, expected origins such as https://example.org, or *")]
    Origin(String),
    /// Certificate or key cannot be used.
    #[error("{file} cannot be used: {problem}")]
    Tls {
        /// The key of the configuration.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The system has no threads or signals for the server.
    #[error("the server cannot be started: {0}")]
    System(#[source] io::Error),
    /// This build has no TLS.
    #[error("this build has no TLS\n  build with the cargo feature `tls`, or leave the section tls out")]
    NoTls,
}

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// An error of a request: its status, and what [`ErrorBody`] says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    detail: Box<ErrorDetail>,
    retry_after: Option<Duration>,
}

/// The body of every response with an error.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What is wrong with a request, or with the server.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// The problem, for people.
    pub message: String,
    /// Whose fault it is: `invalid_request_error`, `authentication_error`, `rate_limit_error`, `overloaded_error` or
    /// `server_error`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// The field of the request that is wrong, if there is one.
    pub param: Option<String>,
    /// The problem, for programs.
    pub code: Option<String>,
    /// What to do, if there is something.
    pub advice: Option<String>,
}

impl ApiError {
    /// An error with a status, a code for programs, and a message. Its type follows from the status.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let error_type = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let detail = ErrorDetail {
            message: message.into(),
            error_type: error_type.to_owned(),
            param: None,
            code: Some(code.to_owned()),
            advice: None,
        };
        ApiError { status, detail: Box::new(detail), retry_after: None }
    }

    /// A field with a value that is not valid: status 400.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).with_param(param)
    }

    /// A field that this server does not honour: status 400.
    pub fn unsupported(param: &str, advice: impl Into<String>) -> Self {
        let message = format!("{param} is not supported by this server");
        Self::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message)
            .with_param(param)
            .with_advice(advice)
    }

    /// A model that does not exist: status 404.
    pub fn no_such_model(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "model_not_found", format!("there is no model {name:?}"))
            .with_param("model")
            .with_advice("GET /v1/models lists the models of this server")
    }

    /// A failure of the server itself: status 500. What happened belongs into the log, not into the response.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the server failed")
            .with_advice("the server's log has the cause; the request can be repeated")
    }

    /// A request whose deadline has passed: status 504.
    pub fn deadline_exceeded(message: &'static str) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
    }

    /// A server that ends: status 503.
    pub fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
            .with_advice("repeat the request; another replica answers it")
            .with_retry_after(Duration::from_secs(1))
    }

    /// Sets the field that is wrong.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.detail.param = Some(param.into());
        self
    }

    /// Sets the field that is wrong, unless a more exact one is named already, or no field is: the server is busy, or it failed.
    #[must_use]
    pub fn or_param(mut self, param: &str) -> Self {
        if matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) {
            self.detail.param.get_or_insert_with(|| param.to_owned());
        }
        self
    }

    /// Sets what to do.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.detail.advice = Some(advice.into());
        self
    }

    /// Sets when the request can be repeated, the header `Retry-After`.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code for programs.
    pub fn code(&self) -> &str {
        self.detail.code.as_deref().unwrap_or_default()
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.detail.message
    }

    /// The field that is wrong, if there is one.
    pub fn param(&self) -> Option<&str> {
        self.detail.param.as_deref()
    }

    /// The body, also for an event in the middle of a stream.
    pub fn body(&self) -> ErrorBody {
        let mut error = (*self.detail).clone();
        if let (None, Some(_), true) = (&error.advice, &error.param, self.status.is_client_error()) {
            error.advice = Some("GET /docs describes the fields of every route".to_owned());
        }
        ErrorBody { error }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        let (message, _) = split_advice(&text);
        match refusal {
            Refusal::QueueFull { retry_after, .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
                    .with_advice("repeat the request after the time of Retry-After")
                    .with_retry_after(retry_after)
            }
            Refusal::Invalid(error) => error.into(),
            Refusal::Constraint { .. } => ApiError::invalid("response_format", message),
            Refusal::ExpertsNotObserved => {
                ApiError::unsupported("experts", "set observe_experts for the model")
            }
            Refusal::ShuttingDown => ApiError::shutting_down(),
        }
    }
}

impl From<Arc<JobError>> for ApiError {
    fn from(error: Arc<JobError>) -> Self {
        match &*error {
            JobError::Model(error) => error.into(),
            JobError::Constraint { .. } => ApiError::invalid("response_format", error.to_string()),
            JobError::ShuttingDown => ApiError::shutting_down(),
            _ => {
                tracing::error!(error = %without_paths(&format!("{error:?}")), "a job failed");
                ApiError::internal()
            }
        }
    }
}

/// The first line of an error, and the advice on the second one.
fn split_advice(text: &str) -> (&str, Option<&str>) {
    match text.split_once('\n') {
        Some((message, advice)) => (message, Some(advice.trim())),
        None => (text, None),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(retry_after) = self.retry_after {
            // whole seconds, and never 0: clients would repeat at once
            let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests;
