//! Health and metadata of the server, and whether models are ready.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error_form::ProtocolError;
use super::{ModelPath, ProtocolErrors, VersionPath};
use crate::error::{ApiError, ApiResult};
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metadata))
        .routes(routes!(model_ready))
        .routes(routes!(version_ready))
}

/// Whether the process answers, and takes requests.
#[derive(Debug, Serialize, ToSchema)]
struct ServerHealth {
    /// True.
    live: bool,
    /// Whether it takes requests.
    ready: bool,
}

/// The server.
#[derive(Debug, Serialize, ToSchema)]
struct ServerMetadata {
    /// `jetmoe`.
    name: &'static str,
    version: &'static str,
    /// `binary_tensor_data` and `generate`, of Triton.
    extensions: [&'static str; 2],
}

/// Whether a model can compute at once.
#[derive(Debug, Serialize, ToSchema)]
struct ModelHealth {
    name: String,
    /// Whether it is in memory.
    ready: bool,
}

/// Whether the process answers. For a liveness probe.
#[utoipa::path(
    get, path = "/v2/health/live", tag = "open inference protocol", operation_id = "v2_live", security(()),
    responses((status = 200, description = "It does", body = ServerHealth))
)]
async fn live(State(state): State<AppState>) -> Json<ServerHealth> {
    Json(ServerHealth { live: true, ready: state.is_ready() })
}

/// Whether the server takes requests. For a readiness probe.
#[utoipa::path(
    get, path = "/v2/health/ready", tag = "open inference protocol", operation_id = "v2_ready", security(()),
    responses(
        (status = 200, description = "It does", body = ServerHealth),
        (status = 503, description = "It loads models, or ends", body = ServerHealth)
    )
)]
async fn ready(State(state): State<AppState>) -> (StatusCode, Json<ServerHealth>) {
    let ready = state.is_ready();
    (status(ready), Json(ServerHealth { live: true, ready }))
}

/// Describes the server.
#[utoipa::path(
    get, path = "/v2", tag = "open inference protocol", operation_id = "v2_metadata",
    responses(
        (status = 200, description = "The metadata", body = ServerMetadata),
        (status = 500, description = "The server failed", body = ProtocolError),
        ProtocolErrors
    )
)]
async fn metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "jetmoe",
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["binary_tensor_data", "generate"],
    })
}

/// Whether a model is in memory. One that is not is loaded by the first request that needs it.
#[utoipa::path(
    get, path = "/v2/models/{model}/ready", tag = "open inference protocol", operation_id = "v2_model_ready", params(ModelPath),
    responses(
        ProtocolErrors,
        (status = 200, description = "It is", body = ModelHealth),
        (status = 503, description = "It is not", body = ModelHealth)
    )
)]
async fn model_ready(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
) -> ApiResult<(StatusCode, Json<ModelHealth>)> {
    let name = path.model;
    let summaries = state.registry().summaries().await;
    let found = summaries.into_iter().find(|summary| summary.name == name || summary.aliases.contains(&name));
    let ready = found.ok_or_else(|| ApiError::no_such_model(&name))?.is_loaded;
    Ok((status(ready), Json(ModelHealth { name, ready })))
}

/// Whether a version of a model is in memory.
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}/ready", tag = "open inference protocol", operation_id = "v2_version_ready", params(VersionPath),
    responses(
        ProtocolErrors,
        (status = 200, description = "It is", body = ModelHealth),
        (status = 503, description = "It is not", body = ModelHealth)
    )
)]
async fn version_ready(
    state: State<AppState>,
    Path(path): Path<VersionPath>,
) -> ApiResult<(StatusCode, Json<ModelHealth>)> {
    model_ready(state, Path(path.checked()?)).await
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
