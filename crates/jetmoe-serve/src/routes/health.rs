//! Probes: whether the process answers, and whether it takes requests.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ErrorResponses;
use crate::error::{ApiError, ApiResult};
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// Whether the process answers. For a liveness probe.
#[utoipa::path(
    get, path = "/health", tag = "operation", security(()),
    responses((status = 200, description = "It does"), ErrorResponses)
)]
async fn health() -> StatusCode {
    StatusCode::OK
}

/// Whether the server takes requests: the models that are loaded at the start are, and it does not end. For a readiness probe.
#[utoipa::path(
    get, path = "/ready", tag = "operation", security(()),
    responses((status = 200, description = "It does"), ErrorResponses)
)]
async fn ready(State(state): State<AppState>) -> ApiResult<StatusCode> {
    if state.is_ready() {
        return Ok(StatusCode::OK);
    }
    if state.shutdown().is_draining() {
        return Err(ApiError::shutting_down());
    }
    let message = "the models are being loaded";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "loading", message)
        .with_retry_after(Duration::from_secs(1)))
}
