//! The configuration of a server: its sections, their defaults, and what they require of each other.

mod layers;
mod model;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::layers::{ConfigError, ConfigSources, ENVIRONMENT_PREFIX};
pub use self::model::ModelConfig;

/// The configuration of a server. [`ConfigSources::read`] makes one from a file, the environment and settings of the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; `127.0.0.1:8080` by default, which no other machine reaches. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// File of API keys, one a line; empty lines and lines that begin with `#` are skipped. `None`, the default, needs no key.
    pub keys_file: Option<PathBuf>,
    /// Memory of all loaded models together, in bytes: their weights, slots and kept prefixes. Models that no request uses are
    /// unloaded, the least recently used first, before one more is loaded. `None`, the default, never unloads.
    pub memory_bytes: Option<u64>,
    /// How long the requests in progress may take after the server was told to end, in seconds; 30 by default.
    pub shutdown_seconds: f64,
    /// Limits of requests and connections.
    pub limits: Limits,
    /// Log lines.
    pub log: Log,
    /// Cross-origin requests of browsers.
    pub cors: Cors,
    /// TLS; plain HTTP without it.
    pub tls: Option<Tls>,
    /// The models, by the names that requests use.
    pub models: BTreeMap<String, ModelConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            keys_file: None,
            memory_bytes: None,
            shutdown_seconds: 30.0,
            limits: Limits::default(),
            log: Log::default(),
            cors: Cors::default(),
            tls: None,
            models: BTreeMap::new(),
        }
    }
}

/// Limits of requests and connections. Times are in seconds and may have fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's body; 8 MiB by default.
    pub body_bytes: usize,
    /// For the whole head of a request, also the first one of a connection and after an idle time; 10 by default.
    pub header_seconds: f64,
    /// Between two parts of a body; 10 by default.
    pub body_idle_seconds: f64,
    /// Bytes per second of a body, on average from its fifth second on; 1024 by default.
    pub body_bytes_per_second: u64,
    /// Until a client takes the next bytes of a response; 30 by default.
    pub write_seconds: f64,
    /// Connections; 1024 by default. Further ones wait until one ends.
    pub connections: usize,
    /// Requests that are answered at the same time, without `/health`, `/ready` and `/metrics`; 256 by default. Further ones
    /// are refused with status 429.
    pub requests: usize,
    /// Requests of one key per minute, without a key of one address; `None`, the default, for no limit.
    pub requests_per_minute: Option<u32>,
    /// Most new tokens of a choice; `None`, the default, for the positions of the model.
    pub max_tokens: Option<usize>,
    /// Sequences of a request: prompts times choices; 128 by default.
    pub sequences: usize,
    /// For a request, with its time in the queue: a generation ends then, with what it has. `None`, the default, for no limit.
    pub request_seconds: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 8 << 20,
            header_seconds: 10.0,
            body_idle_seconds: 10.0,
            body_bytes_per_second: 1024,
            write_seconds: 30.0,
            connections: 1024,
            requests: 256,
            requests_per_minute: None,
            max_tokens: None,
            sequences: 128,
            request_seconds: None,
        }
    }
}

/// Log lines, on standard error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text`, the default, or `json`.
    pub format: LogFormat,
    /// What is logged, as `RUST_LOG` says it; `info` by default.
    pub filter: Option<String>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

/// Cross-origin requests of browsers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Origins whose pages may call the server, such as `https://example.org`; `*` for all. None by default.
    pub origins: Vec<String>,
}

/// TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate, followed by those of its issuers.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

impl Config {
    /// Checks what the sections require.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first value that is not valid, [`ConfigError::NoModel`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let times = [
            ("shutdown_seconds", Some(self.shutdown_seconds), true),
            ("limits.header_seconds", Some(limits.header_seconds), false),
            ("limits.body_idle_seconds", Some(limits.body_idle_seconds), false),
            ("limits.write_seconds", Some(limits.write_seconds), false),
            ("limits.request_seconds", limits.request_seconds, false),
        ];
        for (key, value, may_be_zero) in times {
            let Some(value) = value else { continue };
            // also a duration that Duration cannot hold, and NaN
            let is_valid = value <= 1e9 && (value > 0.0 || may_be_zero && value == 0.0);
            check(key, value, is_valid, "seconds above 0, at most 1000000000")?;
        }
        let counts = [
            ("limits.body_bytes", limits.body_bytes),
            ("limits.connections", limits.connections),
            ("limits.requests", limits.requests),
            ("limits.sequences", limits.sequences),
            ("limits.max_tokens", limits.max_tokens.unwrap_or(1)),
            ("limits.requests_per_minute", limits.requests_per_minute.unwrap_or(1) as usize),
        ];
        for (key, value) in counts {
            check(key, value, value >= 1, "at least 1")?;
        }
        if self.models.is_empty() {
            return Err(ConfigError::NoModel);
        }
        self.check_names()?;
        self.models.iter().try_for_each(|(name, model)| model.validate(name))
    }

    /// Names and aliases are those of one model each.
    fn check_names(&self) -> Result<(), ConfigError> {
        let aliases = self.models.values().flat_map(|model| &model.aliases);
        let mut names: Vec<&str> = self.models.keys().chain(aliases).map(String::as_str).collect();
        names.sort_unstable();
        let is_valid = |name: &&str| !name.is_empty() && !name.chars().any(char::is_control);
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        check("models", twice.unwrap_or_default(), twice.is_none(), "names and aliases that differ")?;
        let invalid = names.iter().find(|name| !is_valid(name));
        check("models", format!("{invalid:?}"), invalid.is_none(), "names without control characters")
    }
}

/// A time of the configuration, which [`Config::validate`] has checked.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

fn check(key: &str, found: impl ToString, is_valid: bool, expected: &'static str) -> Result<(), ConfigError> {
    match is_valid {
        true => Ok(()),
        false => Err(ConfigError::Value { key: key.to_owned(), found: found.to_string(), expected }),
    }
}

#[cfg(test)]
mod tests;
