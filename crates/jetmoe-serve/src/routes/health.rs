//! Probes: whether the process answers, and whether it takes requests.

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, ApiResult};
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// Whether the process answers. For a liveness probe.
#[utoipa::path(get, path = "/health", tag = "operation", responses((status = 200, description = "It does")), security(()))]
async fn health() -> StatusCode {
    StatusCode::OK
}

/// Whether the server takes requests: the models that are loaded at the start are, and it does not end. For a readiness probe.
#[utoipa::path(
    get, path = "/ready", tag = "operation", security(()),
    responses(
        (status = 200, description = "It does"),
        (status = 503, description = "It ends", body = crate::error::ErrorBody),
    )
)]
async fn ready(State(state): State<AppState>) -> ApiResult<StatusCode> {
    // the server listens once the models are loaded
    if state.shutdown().is_draining() { Err(ApiError::shutting_down()) } else { Ok(StatusCode::OK) }
}
