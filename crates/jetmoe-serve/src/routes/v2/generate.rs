//! Generation of text, whole and as a stream.

use axum::response::Response;
use axum::response::sse::Event;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::VERSION;
use super::error_form::ProtocolError;
use super::parameters::GenerateParameters;
use super::text::{Continuation, EndReason, Step, Steps, Token};
use crate::error::{ApiError, ApiResult};
use crate::registry::Lease;
use crate::routes::event_stream::{EventSource, Ready, respond};
use crate::state::AppState;

/// A text to continue. Control tokens in it are text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerateRequest {
    /// The text.
    text_input: String,
    /// How it is continued.
    #[serde(default)]
    parameters: Option<GenerateParameters>,
    /// Returned in the response.
    id: Option<String>,
}

/// A continuation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerateResponse {
    /// The continuation, without the text before it.
    text_output: String,
    model_name: String,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// How a continuation ended, and its tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Details {
    #[schema(required)]
    finish_reason: Option<EndReason>,
    /// Every generated token, also that of the end.
    logprobs: Vec<Token>,
}

/// A part of a continuation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerateStreamResponse {
    /// The text that can no longer change. The texts of all parts are the continuation.
    text_output: String,
    model_name: String,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<StreamDetails>,
}

/// A token, and how the continuation ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamDetails {
    /// Of the last part only.
    finish_reason: Option<EndReason>,
    token: Option<Token>,
}

/// What every part of a response has.
#[derive(Debug, Clone)]
struct Head {
    id: Option<String>,
    model_name: String,
    has_details: bool,
}

impl GenerateRequest {
    async fn start(self, state: &AppState, lease: &Lease) -> ApiResult<(Head, Steps)> {
        let parameters = self.parameters.unwrap_or_default();
        let texts = vec![self.text_input];
        let steps = Steps::start(state, lease, texts, &parameters, state.deadline()).await?;
        let has_details = parameters.has_details();
        Ok((Head { id: self.id, model_name: lease.name().to_owned(), has_details }, steps))
    }
}

/// The whole continuation.
///
/// # Errors
/// A request that the model cannot take, or an error of its job.
pub(crate) async fn generate(
    state: &AppState,
    lease: &Lease,
    request: GenerateRequest,
) -> ApiResult<GenerateResponse> {
    let (head, steps) = request.start(state, lease).await?;
    let Continuation { text, tokens, end } = steps.collect(1).await?.pop().unwrap_or_default();
    Ok(GenerateResponse {
        text_output: text,
        model_name: head.model_name,
        model_version: VERSION,
        id: head.id,
        details: head.has_details.then_some(Details { finish_reason: end, logprobs: tokens }),
    })
}

/// The continuation as server-sent events. An error in the middle is an event with the field `error`, and the last one.
///
/// # Errors
/// A request that the model cannot take.
pub(crate) async fn generate_stream(
    state: &AppState,
    lease: &Lease,
    request: GenerateRequest,
) -> ApiResult<Response> {
    let (head, steps) = request.start(state, lease).await?;
    Ok(respond(Streamed { head, steps }, Ready::default()))
}

/// A continuation whose steps become events.
struct Streamed {
    head: Head,
    steps: Steps,
}

impl EventSource for Streamed {
    async fn advance(&mut self, ready: &mut Ready) {
        match self.steps.next().await {
            Ok(None) => ready.complete(),
            // its text may still change
            Ok(Some(step)) if step.is_silent() && !self.head.has_details => {}
            Ok(Some(step)) => ready.push(data(&self.head.part(step))),
            Err(error) => {
                ready.push(data(&ProtocolError::from(&error)));
                ready.complete();
            }
        }
    }
}

impl Head {
    fn part(&self, step: Step) -> GenerateStreamResponse {
        let details = StreamDetails { finish_reason: step.end, token: step.token };
        GenerateStreamResponse {
            text_output: step.text,
            model_name: self.model_name.clone(),
            model_version: VERSION,
            id: self.id.clone(),
            details: self.has_details.then_some(details),
        }
    }
}

fn data<T: Serialize>(part: &T) -> Event {
    Event::default().json_data(part).unwrap_or_else(|error| {
        tracing::error!(%error, "a part of a stream is no JSON");
        let error = ProtocolError::from(&ApiError::internal());
        Event::default().data(error.to_json())
    })
}
