//! A response as server-sent events, each named by its type, then `[DONE]`.

use axum::response::Response;
use axum::response::sse::Event;

use super::super::event_stream::{self, EventSource, Ready};
use super::events::{Answer, ResponseEvent};
use crate::error::{ApiError, ApiResult};
use crate::generation::Generation;

struct Running {
    generation: Generation,
    answer: Answer,
}

/// The response that streams an answer. The client's end cancels it.
pub(super) fn respond(generation: Generation, mut answer: Answer) -> Response {
    let mut ready = Ready::default();
    push(answer.begin(), &mut ready);
    event_stream::respond(Running { generation, answer }, ready)
}

impl EventSource for Running {
    async fn advance(&mut self, ready: &mut Ready) {
        if let Err(error) = self.try_advance(ready).await {
            push(vec![self.answer.fail(&error, self.generation.usage())], ready);
            ready.push_done();
        }
    }
}

impl Running {
    async fn try_advance(&mut self, ready: &mut Ready) -> ApiResult<()> {
        match self.generation.next().await? {
            Some(delta) => {
                let event = self.answer.add(self.generation.lease().token_texts(), delta);
                push(event.into_iter().collect(), ready);
            }
            None => {
                push(self.answer.end(self.generation.usage())?, ready);
                ready.push_done();
            }
        }
        Ok(())
    }
}

fn push(events: Vec<ResponseEvent>, ready: &mut Ready) {
    for event in events {
        match Event::default().event(event.name()).json_data(&event) {
            Ok(event) => ready.push(event),
            Err(error) => {
                tracing::error!(%error, "an event is no JSON");
                let body = ApiError::internal().body().error;
                ready.push(Event::default().event("error").data(body.message));
                ready.complete();
            }
        }
    }
}
