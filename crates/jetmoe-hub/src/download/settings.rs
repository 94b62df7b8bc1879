//! Settings of the download, from the environment variables that all of Hugging Face's tools read.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Content, DownloadObserver, HubOptions};

const HUB: &str = "https://huggingface.co";

#[derive(Debug)]
pub(super) struct Settings {
    /// URL of the hub, without a trailing slash.
    pub(super) endpoint: String,
    /// `HF_TOKEN`; if `None`, `token_file` counts.
    pub(super) token: Option<String>,
    /// The file that `hf auth login` writes, unless it is disabled. hf-hub reads it by itself.
    pub(super) token_file: Option<PathBuf>,
    pub(super) cache_dir: PathBuf,
    /// Whether to use the cache only.
    pub(super) offline: bool,
    /// Whether to download by HTTP all files that the hub offers by Xet.
    pub(super) disable_xet: bool,
    /// What is needed of a repository.
    pub(super) content: Content,
    pub(super) observer: Option<Arc<dyn DownloadObserver>>,
    /// Delay before the first retry of a failed request; doubles with every retry.
    pub(super) retry_delay: Duration,
}

impl Settings {
    /// Settings from the options and the environment; `variable` looks up an environment variable.
    pub(super) fn new(options: &HubOptions, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let folder = |name: &str| variable(name).map(from_home);
        let home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|caches| caches.join("huggingface")))
            .unwrap_or_else(|| from_home("~/.cache/huggingface".to_owned()));
        let cache_dir = options
            .cache_dir
            .clone()
            .or_else(|| folder("HF_HUB_CACHE"))
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| home.join("hub"));
        let token_file = match variable("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            Some(_) => None,
            None => Some(folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))),
        };
        let offline = variable("HF_HUB_OFFLINE").or_else(|| variable("TRANSFORMERS_OFFLINE"));
        Settings {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| HUB.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: variable("HF_TOKEN"),
            token_file,
            cache_dir,
            offline: options.offline || offline.is_some_and(|value| is_true(&value)),
            disable_xet: variable("HF_HUB_DISABLE_XET").is_some_and(|value| is_true(&value)),
            content: options.content,
            observer: options.observer.clone(),
            retry_delay: Duration::from_millis(100),
        }
    }

    /// The token for requests that hf-hub does not send.
    pub(super) fn bearer_token(&self) -> Option<String> {
        let stored = || {
            let text = fs::read_to_string(self.token_file.as_ref()?).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        };
        self.token.clone().or_else(stored)
    }
}

/// Whether a variable is set to true, as `huggingface_hub` reads it (`constants.py`, `_is_true`).
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

/// A path whose leading `~` is the home folder.
fn from_home(path: String) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}
