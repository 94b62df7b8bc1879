//! Why a download failed, and advice.

use std::fmt;
use std::io;

use hf_hub::HFError;

use super::Request;
use crate::Error;

/// Part of the URL that gives access to Xet storage.
const XET_ACCESS: &str = "/xet-read-token/";

const WITHOUT_XET: &str = "download without Xet: set HF_HUB_DISABLE_XET=1";

pub(super) enum Failure {
    /// The network, the hub or the disk.
    Hub(HFError),
    /// An error response to a download without Xet.
    Response(ErrorResponse),
    /// The hub responded, but the repository cannot be used.
    Refused { message: String, advice: String },
    /// A downloaded file is not valid.
    Files(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Hub(error.into())
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Failure::Hub(error.into())
    }
}

impl From<HFError> for Failure {
    fn from(error: HFError) -> Self {
        Failure::Hub(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Hub(error) => f.write_str(&root_cause(error)),
            Failure::Response(response) => write!(f, "HTTP {} from {}", response.status, response.url),
            Failure::Refused { message, .. } => f.write_str(message),
            Failure::Files(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// Whether the hub is unavailable, so that an older copy in the cache may be used.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Failure::Hub(HFError::Request { source, .. }) => source.is_connect() || source.is_timeout(),
            Failure::Hub(error) => response(error).is_some_and(|response| response.status >= 500),
            Failure::Response(response) => response.status >= 500,
            Failure::Refused { .. } | Failure::Files(_) => false,
        }
    }

    pub(super) fn explain(self, request: &Request<'_>) -> Error {
        let ((message, advice), source) = match self {
            Failure::Files(error) => return error,
            Failure::Refused { message, advice } => ((message, advice), None),
            Failure::Response(response) => (explain_response(&response, request), None),
            Failure::Hub(error) => match response(&error) {
                // the message says all that the response does
                Some(response) => (explain_response(&response, request), None),
                None => (explain_error(&error, request), Some(error.into())),
            },
        };
        Error::Download { id: request.id.to_owned(), message, advice, source }
    }

    /// A file has another size than the hub lists, so it was removed.
    pub(super) fn wrong_size(name: &str, found: u64, listed: u64) -> Self {
        Failure::Refused {
            message: format!("{name} arrived with {found} bytes instead of {listed}"),
            advice: "it was removed; download again; complete files are kept".to_owned(),
        }
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Failure::Hub(HFError::Request { source, .. }) => !source.is_builder(),
            Failure::Response(response) => matches!(response.status, 408 | 429 | 500..),
            Failure::Hub(_) | Failure::Refused { .. } | Failure::Files(_) => false,
        }
    }
}

fn explain_response(response: &ErrorResponse, request: &Request<'_>) -> (String, String) {
    let Request { id, revision, settings } = request;
    let endpoint = &settings.endpoint;
    let tokens = "https://huggingface.co/settings/tokens";
    let said = match response.message.as_deref().map(str::trim) {
        Some(message) if !message.is_empty() => format!(" ({message})"),
        _ => String::new(),
    };
    match (response.status, response.code.as_deref()) {
        (status, _) if response.is_redirected => (
            format!("{} responded with HTTP {status}{said}", response.url),
            "try again later; complete files are not downloaded again".to_owned(),
        ),
        (status, _) if response.url.contains(XET_ACCESS) => (
            format!("{endpoint} does not serve files in Xet storage: HTTP {status}{said}"),
            format!("try again later, or {WITHOUT_XET}"),
        ),
        (_, Some("GatedRepo")) | (403, _) => (
            format!("access to it is restricted{said}"),
            format!(
                "accept its terms at {endpoint}/{id}, then set HF_TOKEN to a token of that account ({tokens})"
            ),
        ),
        (401, _) if settings.token.is_some() => (
            format!("the hub does not accept the token in HF_TOKEN for it{said}"),
            format!(
                "check the id, or set HF_TOKEN to a valid token of an account that may read it ({tokens})"
            ),
        ),
        // to a request without a token the hub does not reveal that a private model exists
        (401, _) => (
            format!("there is no such public model{said}"),
            format!("check the id; if the model is private or gated, set HF_TOKEN ({tokens})"),
        ),
        (404, Some("RevisionNotFound")) => (
            format!("it has no revision {revision:?}"),
            format!("check the revision; its branches and tags are listed at {endpoint}/{id}/tree/main"),
        ),
        (404, Some("RepoNotFound")) => (
            "there is no such model".to_owned(),
            format!("check the id; models are listed at {endpoint}/models"),
        ),
        (404, _) => (
            format!("there is no such model, or it has no revision {revision:?}"),
            format!("check the id and the revision at {endpoint}/{id}"),
        ),
        (429, _) => (
            format!("the hub limits the rate of requests{said}"),
            "wait a few minutes; with HF_TOKEN the limit is higher".to_owned(),
        ),
        (status @ 500.., _) => (
            format!("{endpoint} failed: HTTP {status}{said}"),
            "try again later; complete files are not downloaded again".to_owned(),
        ),
        (status, _) => (
            format!("{} responded with HTTP {status}{said}", response.url),
            "check HF_ENDPOINT and the proxy".to_owned(),
        ),
    }
}

fn explain_error(error: &HFError, request: &Request<'_>) -> (String, String) {
    let Request { id, settings, .. } = request;
    let endpoint = &settings.endpoint;
    let cause = root_cause(error);
    match error {
        HFError::Request { source, .. } if source.is_connect() || source.is_timeout() => (
            format!("cannot reach {}: {cause}", server(source).as_ref().unwrap_or(endpoint)),
            format!(
                "check the network and, behind a proxy, HTTPS_PROXY; or download it elsewhere (`hf download {id}`) and \
                 give the folder; or point HF_HUB_CACHE to a cache that holds it and set HF_HUB_OFFLINE=1"
            ),
        ),
        HFError::Request { source, .. } if is_not_json(source) => (
            format!("{endpoint} does not respond like a hub: {cause}"),
            "check HF_ENDPOINT and the proxy".to_owned(),
        ),
        HFError::Xet { .. } => (
            format!("the download from Xet storage was interrupted: {cause}"),
            format!("try again; complete files are not downloaded again; or {WITHOUT_XET}"),
        ),
        HFError::Request { .. } => (
            format!("the download was interrupted: {cause}"),
            "try again; complete files are not downloaded again".to_owned(),
        ),
        HFError::EntryNotFound { path, .. } => (
            format!("the hub lists {path} but does not serve it"),
            "try again later, or try another revision".to_owned(),
        ),
        HFError::Io(_) => (
            format!("cannot write to the cache {}: {cause}", settings.cache_dir.display()),
            "check its free space and permissions, or set HF_HUB_CACHE to another folder; HF_HUB_OFFLINE=1 uses what it holds"
                .to_owned(),
        ),
        HFError::CacheLockTimeout { path } => (
            "another process is downloading it".to_owned(),
            format!("wait for that process, or remove {} if there is none", path.display()),
        ),
        HFError::Url(_) => (
            format!("{endpoint:?} is not a URL: {cause}"),
            "correct HF_ENDPOINT, for example https://huggingface.co, or unset it".to_owned(),
        ),
        HFError::MalformedResponse { .. } | HFError::Json(_) => (
            format!("{endpoint} does not respond like a hub: {cause}"),
            "check HF_ENDPOINT and the proxy".to_owned(),
        ),
        _ => (cause, format!("check the id and the revision at {endpoint}/{id}")),
    }
}

/// An error response.
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    /// The hub's error code, such as `GatedRepo`.
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// URL of the request, without a query.
    pub(super) url: String,
    /// Whether it came from another server, which the hub redirected to.
    pub(super) is_redirected: bool,
}

/// The hub's response, if there was one.
fn response(error: &HFError) -> Option<ErrorResponse> {
    let context = match error {
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Conflict { context }
        | HFError::RateLimited { context, .. } => context,
        HFError::RepoNotFound { context, .. }
        | HFError::RevisionNotFound { context, .. }
        | HFError::EntryNotFound { context, .. } => context.as_ref()?,
        _ => return None,
    };
    Some(ErrorResponse {
        status: context.status.as_u16(),
        code: context.error_code.clone(),
        message: context.server_message.clone(),
        url: context.url.clone(),
        is_redirected: false,
    })
}

/// The message of the innermost error: `Connection refused`, not `error sending request`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether a response was not the JSON of a hub. A response that ended too early is an error of decoding for reqwest, too.
fn is_not_json(error: &dyn std::error::Error) -> bool {
    error.source().is_some_and(|source| source.is::<serde_json::Error>())
}

/// Scheme, host and port of a failed request.
fn server(error: &reqwest::Error) -> Option<String> {
    error.url().map(|url| url.origin().ascii_serialization())
}
