//! Around every request: its id, a line in the log, and the metrics, which all count until the end of the response.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::guarded_body::guard;
use crate::error::ApiError;
use crate::state::AppState;

/// The header with the id of a request: taken from the request if it has a usable one, and sent with every response.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a request.
const MAX_ID_LENGTH: usize = 128;

/// A request that is being answered. Its end is logged and counted when this value is dropped.
struct Answering {
    state: AppState,
    id: Arc<str>,
    route: Arc<str>,
    method: String,
    started: Instant,
    status: u16,
    code: String,
    /// Whether the whole response was taken by the connection.
    is_complete: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let metrics = self.state.metrics();
        metrics.in_flight().dec();
        metrics.answered(&self.route, &self.method, self.status, elapsed);
        let end = if self.is_complete { "complete" } else { "client left" };
        tracing::info!(
            id = &*self.id,
            method = self.method,
            route = &*self.route,
            status = self.status,
            code = self.code,
            milliseconds = elapsed.as_millis() as u64,
            end,
            "request"
        );
    }
}

/// Answers a request, with its id, and logs and counts it.
pub(super) async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    // not the path, which can hold anything
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).into();
    state.metrics().in_flight().inc();
    let mut answering = Answering {
        state,
        id: Arc::clone(&id),
        route,
        method: method(&request),
        started: Instant::now(),
        // what a proxy logs for a client that left before the head of the response
        status: 499,
        code: String::new(),
        is_complete: false,
    };
    let span = tracing::info_span!("request", id = &*id);
    let mut response = next.run(request).instrument(span).await;
    answering.status = response.status().as_u16();
    if let Some(error) = response.extensions().get::<ApiError>() {
        answering.code = error.code().to_owned();
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.map(|body| guard(body, answering, |answering| answering.is_complete = true))
}

/// The method, of those that have a meaning here: others would be labels without bound.
fn method(request: &Request) -> String {
    let method = request.method().as_str();
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    if known.contains(&method) { method.to_owned() } else { "other".to_owned() }
}

fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_usable =
        |id: &&str| (1..=MAX_ID_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match given.filter(is_usable) {
        Some(id) => id.into(),
        None => format!("req-{:032x}", rand::random::<u128>()).into(),
    }
}
