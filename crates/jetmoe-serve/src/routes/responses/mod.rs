//! The stateless part of the Open Responses specification: text in, text out, whole or as typed events.

mod events;
mod input;
mod request;
mod response;
mod stream;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jetmoe_rt::ChatOptions;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::events::{Answer, ResponseEvent};
use self::request::ResponseRequest;
use self::response::{Head, ResponseObject};
use super::ErrorResponses;
use super::encoded::EncodedJson;
use crate::engine::Job;
use crate::error::ApiResult;
use crate::generation::{DefaultLength, Generation, compile, encode_chat};
use crate::json::JsonBody;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/v1/responses", tag = "generation", operation_id = "create_response", request_body = ResponseRequest,
    responses(
        (status = 200, description = "The response; with `stream` server-sent events", content(
            (ResponseObject = "application/json"), (ResponseEvent = "text/event-stream")
        )),
        ErrorResponses,
    )
)]
async fn create(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<ResponseRequest>,
) -> ApiResult<Response> {
    request.check()?;
    let messages = input::messages(&request.input, request.instructions.as_deref())?;
    let lease = state.registry().get(request.model.as_deref()).await?;
    let engine = lease.engine()?;
    let limits = &state.config().limits;
    request.check_length(limits)?;
    let options = request.sampling_fields().options(engine, limits, DefaultLength::Rest)?;
    let constraint = match request.format().constraint() {
        Some(kind) => Some(compile(engine, kind, "text.format").await?),
        None => None,
    };
    let prompt = encode_chat(engine.generator(), messages, ChatOptions::default()).await;
    let prompt = prompt.map_err(|error| error.with_param("input"))?;
    let head = Head::new(&request, lease.name(), &options);
    let job = Job::new(prompt.token_ids, options).with_deadline(state.deadline()).with_constraint(constraint);
    let started = Generation::start(&state, lease, vec![job], 1);
    let mut generation = started.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => error.or_param("input"),
        _ => error,
    })?;
    let mut answer = Answer::new(head);
    if request.streams() {
        return Ok(stream::respond(generation, answer));
    }
    while let Some(delta) = generation.next().await? {
        answer.take(generation.lease().token_texts(), delta);
    }
    Ok(EncodedJson::new(&answer.response(generation.usage())?)?.into_response())
}
