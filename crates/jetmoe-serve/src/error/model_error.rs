//! Errors of models as errors of requests: status by kind, no path, and fields by the names that requests have.

use std::sync::Arc;

use axum::http::StatusCode;
use jetmoe_rt::{Error, ErrorKind, TextError};

use super::{ApiError, split_advice};

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        ApiError::from(&error)
    }
}

impl From<Arc<Error>> for ApiError {
    fn from(error: Arc<Error>) -> Self {
        ApiError::from(&*error)
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        ApiError::from(&Error::Text(error))
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        let kind = error.kind();
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = code(error, kind);
        match kind {
            ErrorKind::InvalidInput | ErrorKind::TooLong | ErrorKind::Unsupported => {
                let (message, advice) = described(error);
                let mut api_error = ApiError::new(status, code, message);
                if let Some(advice) = advice {
                    api_error = api_error.with_advice(advice);
                }
                match param(error) {
                    Some(param) => api_error.with_param(param),
                    None => api_error,
                }
            }
            ErrorKind::Busy => ApiError::new(status, code, "too little memory is free")
                .with_advice("repeat the request later"),
            ErrorKind::Cancelled => ApiError::new(status, code, "the request was cancelled"),
            // the rest is for the log, not for the client; a folder that is missing is no missing route
            _ => {
                tracing::error!(kind = %kind, error = %without_paths(&error.to_string()), "the model failed");
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, format!("the model failed: {kind}"))
                    .with_advice("the server's log has the cause")
            }
        }
    }
}

/// The problem for programs: OpenAI's code where it has one.
fn code(error: &Error, kind: ErrorKind) -> &'static str {
    match (error, kind) {
        (_, ErrorKind::TooLong) => "context_length_exceeded",
        (Error::WrongTask { .. }, _) => "wrong_task",
        (Error::Option { .. }, _) => "invalid_value",
        (_, ErrorKind::InvalidInput) => "invalid_input",
        (_, ErrorKind::Unsupported) => "unsupported",
        (_, ErrorKind::Busy) => "busy",
        (_, ErrorKind::Cancelled) => "cancelled",
        (_, ErrorKind::InvalidModel) => "invalid_model",
        _ => "model_failed",
    }
}

/// Problem and advice, in words of requests.
fn described(error: &Error) -> (String, Option<String>) {
    match error {
        Error::Text(TextError::Encode { .. }) => ("the tokenizer cannot encode the text".to_owned(), None),
        Error::Option { option, found, expected } => {
            (format!("{} is {found}, expected {expected}", field(option)), None)
        }
        Error::TextTooLong { bytes, limit, positions, .. } => (
            format!(
                "the text has {bytes} bytes, more than the {limit} that are read for {positions} positions"
            ),
            Some("shorten the text".to_owned()),
        ),
        Error::MaxLength { tokens, limit } => (
            format!("the prompt has {tokens} tokens, and prompt and continuation have at most {limit}"),
            Some("shorten the text".to_owned()),
        ),
        Error::Text(TextError::SpecialTokenInMessage { token }) => (
            format!("a message contains {token:?}, a control token, and the chat template changes the text"),
            Some("remove it from the message".to_owned()),
        ),
        _ => {
            let text = without_paths(&error.to_string());
            let (message, advice) = split_advice(&text);
            (message.to_owned(), advice.map(str::to_owned))
        }
    }
}

fn param(error: &Error) -> Option<&'static str> {
    match error {
        Error::Option { option, .. } => Some(field(option)),
        Error::WrongTask { .. } => Some("model"),
        _ => None,
    }
}

/// The field of a request that sets an option of the runtime.
fn field(option: &'static str) -> &'static str {
    match option {
        "max_new_tokens" => "max_tokens",
        "min_new_tokens" => "min_tokens",
        "sequence_bias" => "logit_bias",
        "eos_token_ids" => "stop_token_ids",
        "log_probabilities" => "logprobs",
        other => other,
    }
}

/// The text with the last part of every absolute path in place of the path.
pub(crate) fn without_paths(text: &str) -> String {
    let is_boundary = |character: char| character.is_whitespace() || "\"'`(),;<>=".contains(character);
    let shorten = |word: &str| {
        let is_windows = word.as_bytes().get(1..3) == Some(b":\\");
        if !word.starts_with('/') && !is_windows {
            return word.to_owned();
        }
        let (path, end) = word.split_at(word.trim_end_matches([':', '.']).len());
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
        format!("{name}{end}")
    };
    let mut result = String::with_capacity(text.len());
    let mut word = String::new();
    for character in text.chars() {
        if is_boundary(character) {
            result.push_str(&shorten(&std::mem::take(&mut word)));
            result.push(character);
        } else {
            word.push(character);
        }
    }
    result + &shorten(&word)
}
