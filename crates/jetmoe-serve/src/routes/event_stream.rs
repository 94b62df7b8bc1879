//! Answers as server-sent events: what the streams of all forms have in common.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

/// How often a comment tells proxies that the stream goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events that are not sent yet.
#[derive(Default)]
pub(super) struct Ready {
    events: VecDeque<Event>,
    is_complete: bool,
}

impl Ready {
    pub(super) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The last event of a whole answer, in the form of OpenAI's API.
    pub(super) fn push_done(&mut self) {
        self.push(Event::default().data("[DONE]"));
        self.complete();
    }

    /// The stream ends with the last event so far.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }
}

/// What makes the events of an answer.
pub(super) trait EventSource: Send + 'static {
    /// Waits for what comes next, and adds its events; errors of the answer are events, too.
    fn advance(&mut self, ready: &mut Ready) -> impl Future<Output = ()> + Send;
}

/// The response that streams an answer, which begins with what is ready. The client's end drops the answer.
pub(super) fn respond(answer: impl EventSource, ready: Ready) -> Response {
    let events = stream::unfold((answer, ready), |(mut answer, mut ready)| async move {
        loop {
            if let Some(event) = ready.events.pop_front() {
                return Some((Ok::<_, Infallible>(event), (answer, ready)));
            }
            if ready.is_complete {
                return None;
            }
            answer.advance(&mut ready).await;
        }
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // nginx would collect the events
    let buffering = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")), buffering], sse).into_response()
}
