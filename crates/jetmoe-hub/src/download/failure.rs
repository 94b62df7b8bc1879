//! Why a download failed, and advice.

use std::fmt;

use hf_hub::HFError;

use super::Request;
use crate::Error;

pub(super) enum Failure {
    /// The network, the hub or the disk.
    Hub(HFError),
    /// The hub responded, but the repository cannot be used.
    Refused { message: String, advice: String },
    /// A downloaded file is not valid.
    Files(Error),
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
            Failure::Refused { .. } | Failure::Files(_) => false,
        }
    }

    pub(super) fn explain(self, request: &Request<'_>) -> Error {
        let ((message, advice), source) = match self {
            Failure::Files(error) => return error,
            Failure::Refused { message, advice } => ((message, advice), None),
            Failure::Hub(error) => match response(&error) {
                // the message says all that the response does
                Some(response) => (explain_response(&response, request), None),
                None => (explain_error(&error, request), Some(error.into())),
            },
        };
        Error::Download { id: request.id.to_owned(), message, advice, source }
    }
}

fn explain_response(response: &Response<'_>, request: &Request<'_>) -> (String, String) {
    let Request { id, revision, settings } = request;
    let endpoint = &settings.endpoint;
    let tokens = "https://huggingface.co/settings/tokens";
    let said = match response.message.map(str::trim) {
        Some(message) if !message.is_empty() => format!(" ({message})"),
        _ => String::new(),
    };
    match (response.status, response.code) {
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
            format!("cannot reach {endpoint}: {cause}"),
            format!(
                "check the network and, behind a proxy, HTTPS_PROXY; or download it elsewhere (`hf download {id}`) and \
                 give the folder; or point HF_HUB_CACHE to a cache that holds it and set HF_HUB_OFFLINE=1"
            ),
        ),
        HFError::Request { source, .. } if is_not_json(source) => (
            format!("{endpoint} does not respond like a hub: {cause}"),
            "check HF_ENDPOINT and the proxy".to_owned(),
        ),
        // hf-hub 1.0 has no way to turn Xet off, and a mirror may not serve it
        HFError::Xet { .. } => (
            format!("the download from Xet storage was interrupted: {cause}"),
            format!(
                "try again; complete files are not downloaded again; or, from a mirror without Xet, download it with \
                 `HF_HUB_DISABLE_XET=1 hf download {id}` and set HF_HUB_OFFLINE=1"
            ),
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

/// An error response of the hub.
struct Response<'a> {
    status: u16,
    /// The hub's error code, such as `GatedRepo`.
    code: Option<&'a str>,
    message: Option<&'a str>,
    url: &'a str,
}

/// The hub's response, if there was one.
fn response(error: &HFError) -> Option<Response<'_>> {
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
    Some(Response {
        status: context.status.as_u16(),
        code: context.error_code.as_deref(),
        message: context.server_message.as_deref(),
        url: &context.url,
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
