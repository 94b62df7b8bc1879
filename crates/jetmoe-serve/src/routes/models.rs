//! The list of models.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ErrorResponses;
use crate::error::{ApiError, ApiResult};
use crate::registry::ModelSummary;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retrieve))
}

/// The models of the server.
#[derive(Debug, Serialize, ToSchema)]
struct ModelList {
    /// `list`.
    object: &'static str,
    /// The models, sorted by name; an alias has an entry of its own.
    data: Vec<ModelCard>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelCard {
    /// The name that requests use.
    id: String,
    /// `model`.
    object: &'static str,
    /// When its artifact was written, in seconds since 1970.
    created: u64,
    /// `jetmoe`.
    owned_by: &'static str,
    /// The model of which this name is an alias.
    root: String,
    /// What it computes: `causal-lm`, `backbone` or `sequence-classification`.
    task: String,
    /// Whether it is in memory.
    loaded: bool,
    /// Whether requests may ask which experts the tokens took, by the field `experts`.
    observes_experts: bool,
}

/// Lists the models.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "models",
    responses((status = 200, description = "The models", body = ModelList), ErrorResponses)
)]
async fn list(State(state): State<AppState>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: cards(&state).await })
}

/// Describes a model.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "retrieve_model", tag = "models",
    params(("model" = String, Path, description = "Name or alias")),
    responses((status = 200, description = "The model", body = ModelCard), ErrorResponses)
)]
async fn retrieve(
    State(state): State<AppState>,
    model: Result<Path<String>, PathRejection>,
) -> ApiResult<Json<ModelCard>> {
    let Path(model) = model.map_err(|_| ApiError::invalid("model", "the name in the path is not UTF-8"))?;
    let mut cards = cards(&state).await.into_iter();
    cards.find(|card| card.id == model).map(Json).ok_or_else(|| ApiError::no_such_model(&model))
}

async fn cards(state: &AppState) -> Vec<ModelCard> {
    let mut cards: Vec<ModelCard> = state.registry().summaries().await.iter().flat_map(names).collect();
    cards.sort_by(|left, right| left.id.cmp(&right.id));
    cards
}

/// A card for each name of a model.
fn names(summary: &ModelSummary) -> impl Iterator<Item = ModelCard> + '_ {
    let names = std::iter::once(&summary.name).chain(&summary.aliases);
    names.map(|name| ModelCard {
        id: name.clone(),
        object: "model",
        created: summary.created,
        owned_by: "jetmoe",
        root: summary.name.clone(),
        task: summary.task.to_string(),
        loaded: summary.is_loaded,
        observes_experts: summary.observes_experts,
    })
}
