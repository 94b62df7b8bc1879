//! Bodies in JSON, with errors that name the field.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::error::{ApiError, ApiResult};

/// A body in JSON. A content type is not required, but one of something else is refused.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> ApiResult<Self> {
        check_content_type(request.headers())?;
        // the server has read it within its limits
        let bytes = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        let bytes = bytes
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early"))?;
        parse(&bytes).map(JsonBody)
    }
}

fn check_content_type(headers: &HeaderMap) -> ApiResult<()> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    // the last one is what curl declares by itself
    if essence == "application/json"
        || essence.ends_with("+json")
        || essence == "application/x-www-form-urlencoded"
    {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", "the body is not declared as JSON")
        .with_advice("send the header Content-Type: application/json"))
}

/// A value of a JSON text. Nothing may follow it.
///
/// # Errors
/// Status 400, with the field as the parameter, for a text that is not UTF-8, is no JSON or is nested deeper than 128 levels,
/// for an unknown field, and for a value of another type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("the body is not UTF-8 at byte {}", error.valid_up_to());
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_utf8", message)
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| of_field(&error))?;
    deserializer.end().map_err(|error| of_json(&error))?;
    Ok(value)
}

fn of_field(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    if !error.inner().is_data() {
        return of_json(error.inner());
    }
    let message = without_position(error.inner());
    if let Some((field, known)) = unknown_field(&message) {
        return unknown(&path(error.path(), Some(field)), field, &known);
    }
    if let Some(field) = quoted(&message, "missing field `") {
        let field = path(error.path(), Some(field));
        return ApiError::new(StatusCode::BAD_REQUEST, "missing_parameter", format!("{field} is missing"))
            .with_param(field);
    }
    let field = path(error.path(), None);
    if field.is_empty() {
        return ApiError::new(StatusCode::BAD_REQUEST, "invalid_type", message);
    }
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_type", format!("{field}: {message}")).with_param(field)
}

fn of_json(error: &serde_json::Error) -> ApiError {
    let message = match error.is_data() {
        true => without_position(error),
        false => format!("the body is no JSON: {error}"),
    };
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
}

/// A field that no request has, with the nearest one that it has.
fn unknown(param: &str, field: &str, known: &[String]) -> ApiError {
    let error = ApiError::new(StatusCode::BAD_REQUEST, "unknown_parameter", format!("{param} is not known"));
    let error = error.with_param(param);
    match nearest(field, known.iter().map(String::as_str)) {
        Some(name) => error.with_advice(format!("the nearest field is {name}")),
        None => error.with_advice("leave it out"),
    }
}

/// The name that is most like another one, if it is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.6;
    let by_likeness =
        known.map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate));
    let best = by_likeness.max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE).map(|(_, candidate)| candidate)
}

/// The message without the line and column that serde_json appends.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) if error.line() > 0 => message[..end].to_owned(),
        _ => message,
    }
}

/// The field and the known fields of serde's message about an unknown one.
pub(crate) fn unknown_field(message: &str) -> Option<(&str, Vec<String>)> {
    let field = quoted(message, "unknown field `")?;
    let known = message.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    Some((field, known))
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('`').next()
}

/// A path as `messages[0].content`, with a last field that it may lack.
pub(crate) fn path(path: &serde_path_to_error::Path, last: Option<&str>) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => push_key(&mut text, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    if let Some(last) = last
        && text != last
        && !text.ends_with(&format!(".{last}"))
    {
        push_key(&mut text, last);
    }
    text
}

fn push_key(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(key);
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code, reason = "only parsed")]
        temperature: Option<f64>,
        #[allow(dead_code, reason = "only parsed")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code, reason = "only parsed")]
        role: String,
    }

    fn error(text: &str) -> ApiError {
        parse::<Outer>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest_one() {
        let found = error(r#"{"inner": [], "temperatur": 1}"#);
        assert_eq!((found.code(), found.param()), ("unknown_parameter", Some("temperatur")));
        assert_eq!(found.body().error.advice.as_deref(), Some("the nearest field is temperature"));
        let found = error(r#"{"inner": [{"role": "user", "xyz": 1}]}"#);
        assert_eq!(found.param(), Some("inner[0].xyz"));
    }

    #[test]
    fn a_missing_field_is_named() {
        let found = error(r#"{"inner": [{"role": "a"}, {}]}"#);
        assert_eq!((found.code(), found.param()), ("missing_parameter", Some("inner[1].role")));
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let found = error(r#"{"temperature": "hot"}"#);
        assert_eq!((found.code(), found.param()), ("invalid_type", Some("temperature")));
        assert_eq!(found.message(), "temperature: invalid type: string \"hot\", expected f64");
    }

    #[test]
    fn text_that_is_no_json_is_refused_with_its_place() {
        assert_eq!(error("{").code(), "invalid_json");
        assert_eq!(error(r#"{"inner": []} x"#).code(), "invalid_json");
        let deep = format!(r#"{{"inner": {}"#, "[".repeat(1000));
        assert_eq!(error(&deep).status(), StatusCode::BAD_REQUEST);
        let found = parse::<Outer>(b"{\"inner\": [\"\xff\"]}").unwrap_err();
        assert_eq!((found.code(), found.message()), ("invalid_utf8", "the body is not UTF-8 at byte 12"));
    }
}
