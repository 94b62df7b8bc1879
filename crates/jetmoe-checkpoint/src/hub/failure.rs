//! Why a download failed, and what to do about it.

use std::fmt;

use hf_hub::HFError;

use super::Request;
use crate::Error;

pub(super) enum Failure {
    /// The network, the hub or the disk.
    Hub(HFError),
    /// The hub answered, but what it holds cannot be used.
    Refused { message: String, advice: String },
    /// A fetched file is not what it should be.
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
    /// Whether the hub could not be asked, so that an older answer is better than none.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Failure::Hub(HFError::Request { source, .. }) => source.is_connect() || source.is_timeout(),
            Failure::Hub(error) => answer(error).is_some_and(|answer| answer.status >= 500),
            Failure::Refused { .. } | Failure::Files(_) => false,
        }
    }

    pub(super) fn explain(self, request: &Request<'_>) -> Error {
        let (message, advice) = match self {
            Failure::Files(error) => return error,
            Failure::Refused { message, advice } => (message, advice),
            Failure::Hub(error) => match answer(&error) {
                Some(answer) => explain_answer(&answer, request),
                None => explain_error(&error, request),
            },
        };
        Error::Hub { id: request.id.to_owned(), message, advice }
    }
}

fn explain_answer(answer: &Answer<'_>, request: &Request<'_>) -> (String, String) {
    let Request { id, revision, settings } = request;
    let endpoint = &settings.endpoint;
    let tokens = "https://huggingface.co/settings/tokens";
    let said = match answer.message.map(str::trim) {
        Some(said) if !said.is_empty() => format!(" ({said})"),
        _ => String::new(),
    };
    match (answer.status, answer.code) {
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
        // the hub does not tell strangers whether a private model exists
        (401, _) => (
            format!("there is no such public model{said}"),
            format!("check the id; if the model is private or gated, set HF_TOKEN ({tokens})"),
        ),
        (404, Some("RevisionNotFound")) => (
            format!("it has no revision {revision:?}"),
            format!("check --revision; its branches and tags are listed at {endpoint}/{id}/tree/main"),
        ),
        (404, Some("RepoNotFound")) => (
            "there is no such model".to_owned(),
            format!("check the id; models are listed at {endpoint}/models"),
        ),
        (404, _) => (
            format!("there is no such model, or it has no revision {revision:?}"),
            format!("check the id and --revision at {endpoint}/{id}"),
        ),
        (429, _) => (
            format!("the hub asks for fewer requests{said}"),
            "wait a few minutes; with HF_TOKEN set the limits are higher".to_owned(),
        ),
        (status @ 500.., _) => (
            format!("{endpoint} is out of order: HTTP {status}{said}"),
            "try again later; whole files are not fetched twice".to_owned(),
        ),
        (status, _) => (
            format!("{} answered HTTP {status}{said}", answer.url),
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
        HFError::Request { source, .. } if source.is_decode() => (
            format!("{endpoint} does not answer as a hub: {cause}"),
            "check HF_ENDPOINT and the proxy".to_owned(),
        ),
        HFError::Request { .. } | HFError::Xet { .. } => (
            format!("the download broke off: {cause}"),
            "run the same command again; whole files are not fetched twice".to_owned(),
        ),
        HFError::EntryNotFound { path, .. } => (
            format!("the hub lists {path} but does not hand it out"),
            "try again later, or another --revision".to_owned(),
        ),
        HFError::Io(_) => (
            format!("cannot write to the cache {}: {cause}", settings.cache_dir.display()),
            "check its free space and permissions, or set HF_HUB_CACHE to another folder".to_owned(),
        ),
        HFError::CacheLockTimeout { path } => (
            "another process is downloading it".to_owned(),
            format!("wait for that process, or remove {} if there is none", path.display()),
        ),
        HFError::Url(_) => (
            format!("{endpoint:?} is no address: {cause}"),
            "correct HF_ENDPOINT, for example https://huggingface.co, or unset it".to_owned(),
        ),
        HFError::MalformedResponse { .. } | HFError::Json(_) => (
            format!("{endpoint} does not answer as a hub: {cause}"),
            "check HF_ENDPOINT and the proxy".to_owned(),
        ),
        _ => (cause, format!("check the id and --revision at {endpoint}/{id}")),
    }
}

/// What the hub said when it refused.
struct Answer<'a> {
    status: u16,
    /// The hub's own name for the reason, such as `GatedRepo`.
    code: Option<&'a str>,
    message: Option<&'a str>,
    url: &'a str,
}

/// What the hub answered, if it did.
fn answer(error: &HFError) -> Option<Answer<'_>> {
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
    Some(Answer {
        status: context.status.as_u16(),
        code: context.error_code.as_deref(),
        message: context.server_message.as_deref(),
        url: &context.url,
    })
}

/// The innermost message, which names the cause: `Connection refused`, not `error sending request`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
