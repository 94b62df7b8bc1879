//! Answers as server-sent events: chunks in JSON, then `[DONE]`; an error in the middle is an event with the field `error`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::Serialize;

use super::CommonFields;
use super::usage::Usage;
use crate::error::{ApiError, ApiResult};
use crate::generation::{Delta, Generation};
use crate::registry::Lease;

/// How often a comment tells proxies that the stream goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Turns deltas into the chunks of a route.
pub(super) trait Chunks: Send + 'static {
    /// A chunk.
    type Chunk: Serialize + Send + 'static;

    /// The chunks before the first delta.
    fn begin(&mut self) -> Vec<Self::Chunk>;

    /// The chunks of a delta.
    fn add(&mut self, lease: &Lease, delta: Delta) -> ApiResult<Vec<Self::Chunk>>;

    /// The chunk with the usage, after the last delta.
    fn usage(&mut self, usage: Usage) -> Self::Chunk;
}

struct State<C: Chunks> {
    generation: Generation,
    chunks: C,
    ready: VecDeque<Event>,
    includes_usage: bool,
    obfuscates: bool,
    is_complete: bool,
}

/// The response that streams a generation. The client's end cancels it.
pub(super) fn respond<C: Chunks>(
    generation: Generation,
    mut chunks: C,
    fields: CommonFields<'_>,
) -> Response {
    let first = chunks.begin();
    let mut state = State {
        generation,
        chunks,
        ready: VecDeque::new(),
        includes_usage: fields.includes_usage(),
        obfuscates: fields.obfuscates(),
        is_complete: false,
    };
    state.push(first);
    let events = stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // nginx would collect the events
    let buffering = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")), buffering], sse).into_response()
}

impl<C: Chunks> State<C> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_complete {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.fail(&error);
            }
        }
    }

    async fn advance(&mut self) -> ApiResult<()> {
        match self.generation.next().await? {
            Some(delta) => {
                let chunks = self.chunks.add(self.generation.lease(), delta)?;
                self.push(chunks);
            }
            None => {
                if self.includes_usage {
                    let usage = self.chunks.usage(self.generation.usage().into());
                    self.push(vec![usage]);
                }
                self.ready.push_back(Event::default().data("[DONE]"));
                self.is_complete = true;
            }
        }
        Ok(())
    }

    fn push(&mut self, chunks: Vec<C::Chunk>) {
        for chunk in chunks {
            let text = match self.obfuscates {
                false => serde_json::to_string(&chunk),
                true => serde_json::to_string(&Obfuscated { chunk: &chunk, obfuscation: random_text() }),
            };
            match text {
                Ok(text) => self.ready.push_back(Event::default().data(text)),
                Err(error) => {
                    tracing::error!(%error, "a chunk is no JSON");
                    return self.fail(&ApiError::internal());
                }
            }
        }
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: &ApiError) {
        self.is_complete = true;
        match serde_json::to_string(&error.body()) {
            Ok(text) => self.ready.push_back(Event::default().data(text)),
            Err(error) => tracing::error!(%error, "an error is no JSON"),
        }
    }
}

/// A chunk with random characters.
#[derive(Serialize)]
struct Obfuscated<'a, C> {
    #[serde(flatten)]
    chunk: &'a C,
    obfuscation: String,
}

/// Between 1 and 16 characters.
fn random_text() -> String {
    let mut random = rand::rng();
    let length = random.random_range(1..=16);
    random.sample_iter(Alphanumeric).take(length).map(char::from).collect()
}
