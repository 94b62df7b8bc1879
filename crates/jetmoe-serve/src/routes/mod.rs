//! The routes, and the OpenAPI document that describes them.
//!
//! A group of routes is a file with a function `router() -> OpenApiRouter<AppState>`, which [`api`] merges. Its handlers have
//! `#[utoipa::path(...)]` with `responses(..., ErrorResponses)`, take their body by [`JsonBody`](crate::json::JsonBody), and
//! return [`ApiResult`](crate::error::ApiResult).

mod classify;
mod docs;
mod document;
mod embeddings;
mod encoded;
mod errors;
mod event_stream;
mod health;
mod ids;
mod inputs;
mod metrics;
mod models;
mod openai;
mod rerank;
mod responses;
mod tokenize;
mod v2;

use utoipa_axum::router::OpenApiRouter;

pub(crate) use self::errors::ErrorResponses;
pub(crate) use self::v2::protocol_errors;
use crate::state::AppState;

/// The routes, and those that describe them.
pub(crate) fn router() -> axum::Router<AppState> {
    let (router, document) = api().split_for_parts();
    router.merge(docs::router(&document))
}

/// The routes of the API.
pub(crate) fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(document::base())
        .merge(openai::router())
        .merge(tokenize::router())
        .merge(health::router())
        .merge(metrics::router())
        .merge(embeddings::router())
        .merge(classify::router())
        .merge(rerank::router())
        .merge(responses::router())
        .merge(v2::router())
        .merge(models::router())
}
