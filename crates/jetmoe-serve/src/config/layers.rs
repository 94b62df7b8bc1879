//! Reads a configuration: a file, then the environment, then settings of the caller, each over the ones before it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::IntoDeserializer;
use toml::{Table, Value};

use super::Config;
use crate::json::{nearest, path, unknown_field};

/// Environment variables whose names begin so are settings: `JETMOE_SERVE_LIMITS__BODY_BYTES` sets `limits.body_bytes`.
pub const ENVIRONMENT_PREFIX: &str = "JETMOE_SERVE_";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration {} is no TOML: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The name of a setting is no key.
    #[error("{origin}: {key:?} is no key\n  write it as section.key")]
    NoKey {
        /// The key.
        key: String,
        /// Where it comes from.
        origin: Origin,
    },
    /// A key that does not exist.
    #[error("{origin}: there is no key {key}{}", nearest.as_ref().map_or_else(String::new, |key| format!("\n  the nearest one is {key}")))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it comes from.
        origin: Origin,
        /// The key that is most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type, or none where one is needed.
    #[error("{origin}: {key}: {problem}")]
    Type {
        /// The key.
        key: String,
        /// Where it comes from.
        origin: Origin,
        /// What is wrong.
        problem: String,
    },
    /// A value that is not valid.
    #[error("{key} is {found}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The valid values.
        expected: &'static str,
    },
    /// There is nothing to serve.
    #[error("the configuration has no model\n  add a section [models.NAME] with its folder")]
    NoModel,
    /// Options of a model that contradict each other or this build.
    #[error("models.{name}: {source}")]
    Model {
        /// Name of the model.
        name: String,
        /// What is wrong.
        source: Box<jetmoe_rt::Error>,
    },
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written as TOML: {0}")]
    Print(#[from] Box<toml::ser::Error>),
}

/// Where a value of a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A setting of the caller.
    Setting(String),
    /// None of them.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(variable) => write!(f, "the environment variable {variable}"),
            Origin::Setting(key) => write!(f, "the setting {key}"),
            Origin::Nowhere => f.write_str("the configuration"),
        }
    }
}

/// What a configuration is read from. Later ones replace earlier ones: defaults, the file, the environment, settings.
#[derive(Debug, Clone, Default)]
pub struct ConfigSources {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    settings: Vec<(String, Value)>,
}

/// Values of one origin.
struct Layer {
    origin: Origin,
    values: Table,
}

impl ConfigSources {
    /// The defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a TOML file.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<Option<PathBuf>>) -> Self {
        self.file = file.into();
        self
    }

    /// Takes those variables whose names begin with [`ENVIRONMENT_PREFIX`], except `JETMOE_SERVE_CONFIG`, which commands take for
    /// the file. Two underscores divide sections and keys.
    #[must_use]
    pub fn with_environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        const FILE: &str = "CONFIG";
        let settings = variables
            .into_iter()
            .filter(|(name, _)| name.strip_prefix(ENVIRONMENT_PREFIX).is_some_and(|name| name != FILE));
        self.environment.extend(settings);
        self
    }

    /// Sets a key such as `limits.body_bytes`. A value that is no TOML is a text.
    #[must_use]
    pub fn with_setting(mut self, key: impl Into<String>, value: &str) -> Self {
        self.settings.push((key.into(), parse_value(value)));
        self
    }

    /// Sets a key to a text.
    #[must_use]
    pub fn with_text(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.settings.push((key.into(), Value::String(text.into())));
        self
    }

    /// Reads the configuration and checks it.
    ///
    /// # Errors
    /// A file that cannot be read, a key that does not exist, a value that is not valid.
    pub fn read(self) -> Result<Config, ConfigError> {
        let layers = self.layers()?;
        let mut merged = Table::new();
        for layer in &layers {
            merge(&mut merged, layer.values.clone());
        }
        let deserializer = Value::Table(merged).into_deserializer();
        let config: Config =
            serde_path_to_error::deserialize(deserializer).map_err(|error| of_key(&layers, &error))?;
        config.validate()?;
        Ok(config)
    }

    fn layers(self) -> Result<Vec<Layer>, ConfigError> {
        let mut layers = Vec::new();
        if let Some(path) = self.file {
            let values = read_file(&path)?;
            layers.push(Layer { origin: Origin::File(path), values });
        }
        for (variable, value) in self.environment {
            let key = variable[ENVIRONMENT_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let origin = Origin::Environment(variable);
            layers.push(Layer { values: nested(&key, parse_value(&value), &origin)?, origin });
        }
        for (key, value) in self.settings {
            let origin = Origin::Setting(key.clone());
            layers.push(Layer { values: nested(&key, value, &origin)?, origin });
        }
        Ok(layers)
    }
}

impl Config {
    /// The configuration as TOML. Keys of clients are in a file of their own, so it holds no secret.
    ///
    /// # Errors
    /// [`ConfigError::Print`] for a number that TOML does not have.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|error| ConfigError::Print(Box::new(error)))
    }
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
}

fn parse_value(text: &str) -> Value {
    let table: Result<Table, _> = format!("value = {text}").parse();
    // a text with a line break could hold further keys
    let value = table.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A table that holds a value under a key with dots.
fn nested(key: &str, value: Value, origin: &Origin) -> Result<Table, ConfigError> {
    let no_key = || ConfigError::NoKey { key: key.to_owned(), origin: origin.clone() };
    // what would end the key
    if key.contains('\n') {
        return Err(no_key());
    }
    let mut table: Table = format!("{key} = 0").parse().map_err(|_| no_key())?;
    let mut place = &mut table;
    loop {
        let (_, inner) = place.iter_mut().next().ok_or_else(no_key)?;
        match inner {
            Value::Table(inner) => place = inner,
            leaf => {
                *leaf = value;
                break;
            }
        }
    }
    Ok(table)
}

/// Puts values over others. Lists are replaced, not joined.
fn merge(values: &mut Table, over: Table) {
    for (key, value) in over {
        match (values.get_mut(&key), value) {
            (Some(Value::Table(values)), Value::Table(over)) => merge(values, over),
            (_, value) => {
                values.insert(key, value);
            }
        }
    }
}

fn of_key(layers: &[Layer], error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
    let problem = error.inner().message();
    if let Some((field, known)) = unknown_field(problem) {
        let key = path(error.path(), Some(field));
        let section = key.strip_suffix(field).unwrap_or_default();
        let nearest = nearest(field, known.iter().map(String::as_str)).map(|name| format!("{section}{name}"));
        return ConfigError::UnknownKey { origin: origin(layers, &key), key, nearest };
    }
    let key = path(error.path(), None);
    ConfigError::Type { origin: origin(layers, &key), key, problem: problem.to_owned() }
}

/// The last layer that has a key.
fn origin(layers: &[Layer], key: &str) -> Origin {
    let has = |layer: &&Layer| {
        let mut value: Option<&Value> = None;
        let mut table = Some(&layer.values);
        for part in key.split('.') {
            let part = part.split('[').next().unwrap_or(part);
            value = table.and_then(|table| table.get(part));
            table = value.and_then(Value::as_table);
        }
        value.is_some()
    };
    layers.iter().rev().find(has).map_or(Origin::Nowhere, |layer| layer.origin.clone())
}
