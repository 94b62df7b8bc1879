//! The page at `/`: chat and completion in a browser. Its source is in `page/` of this crate, and the binary holds it.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// What a page of this server may do: load its own script, style and icon, and call its own routes. Nothing of an answer becomes
/// script or markup, and no other page shows this one in a frame.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// A file of the page.
struct File {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// A file by its name, its type and its text.
macro_rules! files {
    ($($name:literal: $content_type:ident,)*) => {
        [$(File { name: $name, content_type: $content_type, text: include_str!(concat!("../page/", $name)) },)*]
    };
}

/// The document first; the others are below `/page/`.
const FILES: [File; 12] = files! {
    "page.html": HTML,
    "page.css": STYLE,
    "icon.svg": PICTURE,
    "page.js": SCRIPT,
    "answer.js": SCRIPT,
    "api.js": SCRIPT,
    "controls.js": SCRIPT,
    "dom.js": SCRIPT,
    "experts.js": SCRIPT,
    "inspector.js": SCRIPT,
    "sse.js": SCRIPT,
    "turn.js": SCRIPT,
};

/// The routes of the page: `/` and `/page/{file}`. They need no key, because they hold nothing but this file's constants.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { respond(&FILES[0], &headers) }))
        .route("/page/{file}", get(file))
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES[1..].iter().find(|file| file.name == name) {
        Some(file) => respond(file, &headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The file, or that the browser has it already.
fn respond(file: &File, headers: &HeaderMap) -> Response {
    let tag = entity_tag(file.text);
    let mut response = if is_held(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, file.content_type)], file.text).into_response()
    };
    let fixed: [(HeaderName, &'static str); 6] = [
        // asked for again each time, because a new version of the server has new files under the old names
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// A strong entity tag: a digest of the text.
fn entity_tag(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// Whether `If-None-Match` names the tag, by the weak comparison of RFC 9110, section 13.1.2.
fn is_held(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|held| {
        let held = held.trim();
        held == "*" || held.strip_prefix("W/").unwrap_or(held) == tag
    })
}

#[cfg(test)]
mod tests;
