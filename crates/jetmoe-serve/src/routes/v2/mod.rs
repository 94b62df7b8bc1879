//! The Open Inference Protocol, version 2: health, metadata, inference on tensors and texts, generation.

mod data;
mod error_form;
mod generate;
mod infer;
mod metadata;
mod parameters;
mod problem;
mod request;
mod response;
mod run;
mod server;
mod tensor;
mod text;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::error_form::ProtocolErrors;
pub(crate) use self::error_form::protocol_errors;
use self::generate::{GenerateRequest, GenerateResponse, GenerateStreamResponse, generate, generate_stream};
use self::metadata::ModelMetadata;
use self::problem::Problem;
use self::request::InferRequest;
use self::response::InferResponse;
use self::run::run;
use crate::error::{ApiError, ApiResult};
use crate::json::JsonBody;
use crate::registry::Lease;
use crate::state::AppState;

/// The version of every model: they have no others.
const VERSION: &str = "1";

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(server::router())
        .routes(routes!(metadata_of_model))
        .routes(routes!(metadata_of_version))
        .routes(routes!(infer_model))
        .routes(routes!(infer_version))
        .routes(routes!(generate_model))
        .routes(routes!(generate_version))
        .routes(routes!(generate_stream_model))
        .routes(routes!(generate_stream_version))
}

/// A model of an address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ModelPath {
    /// Name or alias of the model.
    model: String,
}

/// A version of a model of an address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct VersionPath {
    /// Name or alias of the model.
    model: String,
    /// `1`: models have no other version.
    version: String,
}

impl VersionPath {
    /// Refuses versions that there are not.
    fn checked(self) -> Result<ModelPath, Problem> {
        match self.version == VERSION {
            true => Ok(ModelPath { model: self.model }),
            false => Err(Problem::Version { model: self.model, found: self.version }),
        }
    }
}

impl ModelPath {
    async fn lease(&self, state: &AppState) -> ApiResult<Lease> {
        state.registry().get(Some(&self.model)).await
    }
}

/// Describes the tensors of a model.
#[utoipa::path(
    get, path = "/v2/models/{model}", tag = "open inference protocol", operation_id = "v2_metadata_of_model", params(ModelPath),
    responses((status = 200, description = "The metadata", body = ModelMetadata), ProtocolErrors)
)]
async fn metadata_of_model(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
) -> ApiResult<Json<ModelMetadata>> {
    let lease = path.lease(&state).await?;
    Ok(Json(ModelMetadata::new(lease.name().to_owned(), lease.model())))
}

/// Describes the tensors of a version of a model.
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}", tag = "open inference protocol", operation_id = "v2_metadata_of_version", params(VersionPath),
    responses((status = 200, description = "The metadata", body = ModelMetadata), ProtocolErrors)
)]
async fn metadata_of_version(
    state: State<AppState>,
    Path(path): Path<VersionPath>,
) -> ApiResult<Json<ModelMetadata>> {
    metadata_of_model(state, Path(path.checked()?)).await
}

/// Computes the outputs of a model for tensors, in JSON or as bytes.
#[utoipa::path(
    post, path = "/v2/models/{model}/infer", tag = "open inference protocol", operation_id = "v2_infer_model", params(ModelPath),
    request_body(content(
        (InferRequest = "application/json"),
        (Vec<u8> = "application/octet-stream")
    )),
    responses((status = 200, description = "The outputs", body = InferResponse), ProtocolErrors)
)]
async fn infer_model(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
    request: Request,
) -> ApiResult<Response> {
    let lease = path.lease(&state).await?;
    let (parts, body) = request.into_parts();
    // the server has read it within its limits
    let body = to_bytes(body, usize::MAX).await;
    let body =
        body.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early"))?;
    run(&state, &lease, &path.model, &parts.headers, &body).await
}

/// Computes the outputs of a version of a model for tensors, in JSON or as bytes.
#[utoipa::path(
    post, path = "/v2/models/{model}/versions/{version}/infer", tag = "open inference protocol", operation_id = "v2_infer_version", params(VersionPath),
    request_body(content(
        (InferRequest = "application/json"),
        (Vec<u8> = "application/octet-stream")
    )),
    responses((status = 200, description = "The outputs", body = InferResponse), ProtocolErrors)
)]
async fn infer_version(
    state: State<AppState>,
    Path(path): Path<VersionPath>,
    request: Request,
) -> ApiResult<Response> {
    infer_model(state, Path(path.checked()?), request).await
}

/// Continues a text.
#[utoipa::path(
    post, path = "/v2/models/{model}/generate", tag = "open inference protocol", operation_id = "v2_generate_model", params(ModelPath),
    request_body = GenerateRequest,
    responses((status = 200, description = "The continuation", body = GenerateResponse), ProtocolErrors)
)]
async fn generate_model(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
    JsonBody(request): JsonBody<GenerateRequest>,
) -> ApiResult<Json<GenerateResponse>> {
    let lease = path.lease(&state).await?;
    generate(&state, &lease, request).await.map(Json)
}

/// Continues a text by a version of a model.
#[utoipa::path(
    post, path = "/v2/models/{model}/versions/{version}/generate", tag = "open inference protocol", operation_id = "v2_generate_version",
    params(VersionPath), request_body = GenerateRequest,
    responses((status = 200, description = "The continuation", body = GenerateResponse), ProtocolErrors)
)]
async fn generate_version(
    state: State<AppState>,
    Path(path): Path<VersionPath>,
    body: JsonBody<GenerateRequest>,
) -> ApiResult<Json<GenerateResponse>> {
    generate_model(state, Path(path.checked()?), body).await
}

/// Continues a text, and sends it as server-sent events.
#[utoipa::path(
    post, path = "/v2/models/{model}/generate_stream", tag = "open inference protocol", operation_id = "v2_generate_stream_model", params(ModelPath),
    request_body = GenerateRequest,
    responses(
        (status = 200, description = "The continuation", body = GenerateStreamResponse, content_type = "text/event-stream"),
        ProtocolErrors
    )
)]
async fn generate_stream_model(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
    JsonBody(request): JsonBody<GenerateRequest>,
) -> ApiResult<Response> {
    let lease = path.lease(&state).await?;
    generate_stream(&state, &lease, request).await
}

/// Continues a text by a version of a model, and sends it as server-sent events.
#[utoipa::path(
    post, path = "/v2/models/{model}/versions/{version}/generate_stream", tag = "open inference protocol", operation_id = "v2_generate_stream_version",
    params(VersionPath), request_body = GenerateRequest,
    responses(
        (status = 200, description = "The continuation", body = GenerateStreamResponse, content_type = "text/event-stream"),
        ProtocolErrors
    )
)]
async fn generate_stream_version(
    state: State<AppState>,
    Path(path): Path<VersionPath>,
    body: JsonBody<GenerateRequest>,
) -> ApiResult<Response> {
    generate_stream_model(state, Path(path.checked()?), body).await
}
