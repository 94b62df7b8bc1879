//! Answers as server-sent events: chunks in JSON, then `[DONE]`; an error in the middle is an event with the field `error`.

use axum::response::Response;
use axum::response::sse::Event;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::Serialize;

use super::super::event_stream::{self, EventSource, Ready};
use super::CommonFields;
use super::usage::Usage;
use crate::error::{ApiError, ApiResult};
use crate::generation::{Delta, Generation};
use crate::registry::Lease;

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

/// A generation whose deltas become chunks.
struct Answer<C: Chunks> {
    generation: Generation,
    chunks: C,
    includes_usage: bool,
    obfuscates: bool,
}

/// The response that streams a generation. The client's end cancels it.
pub(super) fn respond<C: Chunks>(generation: Generation, chunks: C, fields: CommonFields<'_>) -> Response {
    let (includes_usage, obfuscates) = (fields.includes_usage(), fields.obfuscates());
    let mut answer = Answer { generation, chunks, includes_usage, obfuscates };
    let (first, mut ready) = (answer.chunks.begin(), Ready::default());
    answer.push(first, &mut ready);
    event_stream::respond(answer, ready)
}

impl<C: Chunks> EventSource for Answer<C> {
    async fn advance(&mut self, ready: &mut Ready) {
        if let Err(error) = self.try_advance(ready).await {
            fail(&error, ready);
        }
    }
}

impl<C: Chunks> Answer<C> {
    async fn try_advance(&mut self, ready: &mut Ready) -> ApiResult<()> {
        match self.generation.next().await? {
            Some(delta) => {
                let chunks = self.chunks.add(self.generation.lease(), delta)?;
                self.push(chunks, ready);
            }
            None => {
                if self.includes_usage {
                    let usage = self.chunks.usage(self.generation.usage().into());
                    self.push(vec![usage], ready);
                }
                ready.push_done();
            }
        }
        Ok(())
    }

    fn push(&self, chunks: Vec<C::Chunk>, ready: &mut Ready) {
        for chunk in chunks {
            let text = match self.obfuscates {
                false => serde_json::to_string(&chunk),
                true => serde_json::to_string(&Obfuscated { chunk: &chunk, obfuscation: random_text() }),
            };
            match text {
                Ok(text) => ready.push(Event::default().data(text)),
                Err(error) => {
                    tracing::error!(%error, "a chunk is no JSON");
                    return fail(&ApiError::internal(), ready);
                }
            }
        }
    }
}

/// Ends a stream with an error.
fn fail(error: &ApiError, ready: &mut Ready) {
    ready.complete();
    match serde_json::to_string(&error.body()) {
        Ok(text) => ready.push(Event::default().data(text)),
        Err(error) => tracing::error!(%error, "an error is no JSON"),
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
