//! Settings of the download, from the environment variables that all of Hugging Face's tools read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Content, DownloadObserver, HubOptions};

const HUB: &str = "https://huggingface.co";

#[derive(Debug)]
pub(super) struct Settings {
    /// URL of the hub, without a trailing slash.
    pub(super) endpoint: String,
    /// `HF_TOKEN`; if `None`, hf-hub reads the file that `hf auth login` writes.
    pub(super) token: Option<String>,
    pub(super) cache_dir: PathBuf,
    /// Whether to use the cache only.
    pub(super) offline: bool,
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
        let cache_dir = options
            .cache_dir
            .clone()
            .or_else(|| folder("HF_HUB_CACHE"))
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| folder("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| folder("XDG_CACHE_HOME").map(|caches| caches.join("huggingface/hub")))
            .unwrap_or_else(|| from_home("~/.cache/huggingface/hub".to_owned()));
        let offline = variable("HF_HUB_OFFLINE")
            .or_else(|| variable("TRANSFORMERS_OFFLINE"))
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        Settings {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| HUB.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: variable("HF_TOKEN"),
            cache_dir,
            offline,
            content: options.content,
            observer: options.observer.clone(),
            retry_delay: Duration::from_millis(100),
        }
    }
}

/// A path whose leading `~` is the home folder.
fn from_home(path: String) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}
