//! What every request passes before its handler: the end of the server, its key, its rate, its body, and the number of requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::guarded_body::guard;
use crate::auth::{Client, Keys, RateLimit};
use crate::config::{Limits, seconds};
use crate::error::{ApiError, ApiResult};
use crate::state::AppState;

/// The address of the other end of a connection, an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who may call the server, and how often.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) rate: Option<Arc<RateLimit>>,
    /// Requests that may be answered at the same time.
    pub(super) requests: Arc<Semaphore>,
}

/// Paths that need no key and are not limited: probes, metrics, and texts that do not depend on the models' data.
fn is_open(path: &str) -> bool {
    const OPEN: [&str; 8] = [
        "/",
        "/health",
        "/ready",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v2/health/live",
        "/v2/health/ready",
    ];
    OPEN.contains(&path) || path.starts_with("/page/")
}

/// Lets a request in, or refuses it by its key, its rate, or because the server ends.
pub(super) async fn admit(
    State((state, gate)): State<(AppState, Gate)>,
    request: Request,
    next: Next,
) -> Response {
    let is_limited = !is_open(request.uri().path());
    if is_limited && let Err(error) = check(&state, &gate, &request) {
        return closing(error);
    }
    let request = match read_body(&state.config().limits, request).await {
        Ok(request) => request,
        Err(error) => return closing(error),
    };
    if !is_limited {
        return next.run(request).await;
    }
    let Ok(permit) = Arc::clone(&gate.requests).try_acquire_owned() else {
        let message = "the server answers as many requests as it may";
        return ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
            .with_advice("repeat the request after the time of Retry-After")
            .with_retry_after(Duration::from_secs(1))
            .into_response();
    };
    let response = next.run(request).await;
    response.map(|body| guard(body, permit, |_| {}))
}

fn check(state: &AppState, gate: &Gate, request: &Request) -> ApiResult<()> {
    if state.shutdown().is_draining() {
        return Err(ApiError::shutting_down());
    }
    check_origin(&state.config().cors.origins, request)?;
    let client = match &gate.keys {
        Some(keys) => Client::Key(keys.check(request.headers())?),
        None => Client::Address(request.extensions().get::<Peer>().map(|Peer(address)| address.ip())),
    };
    gate.rate.as_ref().map_or(Ok(()), |rate| rate.check(client))
}

/// Refuses requests of pages of other origins: browsers send some of them without asking.
fn check_origin(allowed: &[String], request: &Request) -> ApiResult<()> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let host = origin.split_once("://").map(|(_, host)| host);
    let is_own = host.is_some() && host == text(header::HOST);
    if is_own || allowed.iter().any(|it| it == origin || it == "*") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "forbidden_origin",
        "pages of this origin may not call the server",
    )
    .with_advice("add the origin to cors.origins of the server"))
}

/// A response after which the connection is closed: what is left of the body is not read.
fn closing(error: ApiError) -> Response {
    let mut response = error.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A body may take this long before its average rate counts.
const GRACE: Duration = Duration::from_secs(5);

/// The request with its whole body in memory.
async fn read_body(limits: &Limits, request: Request) -> ApiResult<Request> {
    let (parts, body) = request.into_parts();
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE) {
        return Ok(Request::from_parts(parts, body));
    }
    if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_encoding",
            "the body is compressed",
        )
        .with_advice("send it without Content-Encoding"));
    }
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let declared: usize = declared.and_then(|length| length.parse().ok()).unwrap_or(0);
    if declared > limits.body_bytes {
        return Err(too_large(limits));
    }
    let started = Instant::now();
    let mut bytes = Vec::with_capacity(declared);
    let mut stream = body.into_data_stream();
    loop {
        let next = timeout(seconds(limits.body_idle_seconds), stream.next());
        let Some(part) = next.await.map_err(|_| too_slow())? else { break };
        let part = part
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early"))?;
        if bytes.len() + part.len() > limits.body_bytes {
            return Err(too_large(limits));
        }
        bytes.extend_from_slice(&part);
        let elapsed = started.elapsed();
        if elapsed > GRACE
            && (bytes.len() as f64) < elapsed.as_secs_f64() * limits.body_bytes_per_second as f64
        {
            return Err(too_slow());
        }
    }
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn too_large(limits: &Limits) -> ApiError {
    let message = format!("the body has more than {} bytes", limits.body_bytes);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        .with_advice("send less, or raise limits.body_bytes of the server")
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body came too slowly")
        .with_advice("send the request again")
}
