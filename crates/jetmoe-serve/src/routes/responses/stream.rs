//! A response as server-sent events, each named by its type, then `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::events::{Answer, ResponseEvent};
use crate::error::{ApiError, ApiResult};
use crate::generation::Generation;

/// How often a comment tells proxies that the stream goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Running {
    generation: Generation,
    answer: Answer,
    ready: VecDeque<Event>,
    is_complete: bool,
}

/// The response that streams an answer. The client's end cancels it.
pub(super) fn respond(generation: Generation, mut answer: Answer) -> Response {
    let first = answer.begin();
    let mut running = Running { generation, answer, ready: VecDeque::new(), is_complete: false };
    running.push(first);
    let events = stream::unfold(running, |mut running| async move {
        let event = running.next().await?;
        Some((Ok::<_, Infallible>(event), running))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // nginx would collect the events
    let buffering = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")), buffering], sse).into_response()
}

impl Running {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_complete {
                return None;
            }
            if let Err(error) = self.advance().await {
                let failed = self.answer.fail(&error, self.generation.usage());
                self.complete(vec![failed]);
            }
        }
    }

    async fn advance(&mut self) -> ApiResult<()> {
        match self.generation.next().await? {
            Some(delta) => {
                let event = self.answer.add(self.generation.lease().token_texts(), delta);
                self.push(event.into_iter().collect());
            }
            None => {
                let events = self.answer.end(self.generation.usage())?;
                self.complete(events);
            }
        }
        Ok(())
    }

    fn complete(&mut self, events: Vec<ResponseEvent>) {
        self.push(events);
        self.ready.push_back(Event::default().data("[DONE]"));
        self.is_complete = true;
    }

    fn push(&mut self, events: Vec<ResponseEvent>) {
        for event in events {
            match Event::default().event(event.name()).json_data(&event) {
                Ok(event) => self.ready.push_back(event),
                Err(error) => {
                    tracing::error!(%error, "an event is no JSON");
                    let body = ApiError::internal().body().error;
                    self.ready.push_back(Event::default().event("error").data(body.message));
                    self.is_complete = true;
                }
            }
        }
    }
}
