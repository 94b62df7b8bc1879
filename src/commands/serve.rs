//! `jetmoe serve`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_console::{LogLines, finish_on_interrupt, print, start_server_logging};
use jetmoe_serve::config::{Config, ConfigSources, LogFormat};
use jetmoe_serve::run_blocking;

use super::ExitStatus;

/// Serve models over HTTP: OpenAI's API, the Open Inference Protocol, and a page for a browser.
///
/// Settings come from defaults, the file of --config, the environment (JETMOE_SERVE_LIMITS__BODY_BYTES for limits.body_bytes) and
/// flags, each over the ones before it. docs/serve.md describes every one. SIGTERM and Ctrl-C end the server when its requests are
/// answered, a second Ctrl-C at once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  jetmoe serve artifact\n  jetmoe serve --model chat=artifact --set models.chat.slots=32 --print-config"
)]
pub(crate) struct Serve {
    /// Folders of artifacts made by jetmoe-export; requests name them by the last part of the path.
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Folder of an artifact, and the name that requests use. Can be given several times.
    #[arg(long, value_name = "NAME=DIR", value_parser = parse_pair)]
    model: Vec<(String, String)>,
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE", env = "JETMOE_SERVE_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Address and port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// File of API keys, one a line [default: requests need no key]
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Log lines [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogChoice>,
    /// Any setting, such as limits.requests=64 or models.chat.precision=q4. A value that is no TOML is a text. Can be given several
    /// times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
    /// Print the configuration that results, and serve nothing.
    #[arg(long)]
    print_config: bool,
}

/// Log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogChoice {
    /// For people.
    Text,
    /// An object a line, for programs.
    Json,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no ="))?;
    if name.is_empty() {
        Err(format!("{text:?} has no name"))
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

impl Serve {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let config = self.configuration()?;
        if self.print_config {
            print(&config.to_toml()?)?;
            return Ok(ExitStatus::Success);
        }
        let lines = match config.log.format {
            LogFormat::Text => LogLines::Text,
            LogFormat::Json => LogLines::Json,
        };
        start_server_logging(lines, config.log.filter.as_deref())?;
        run_blocking(config, |shutdown| finish_on_interrupt(move || shutdown.drain()))?;
        Ok(ExitStatus::Success)
    }

    fn configuration(&self) -> anyhow::Result<Config> {
        let variables = std::env::vars_os();
        // others are not UTF-8, and none of the server's
        let variables =
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut sources = ConfigSources::new().with_file(self.config.clone()).with_environment(variables);
        for folder in &self.folders {
            sources = sources.with_text(folder_key(&name_of(folder)?), text(folder)?);
        }
        for (name, folder) in &self.model {
            sources = sources.with_text(folder_key(name), folder);
        }
        if let Some(listen) = &self.listen {
            sources = sources.with_text("listen", listen);
        }
        if let Some(file) = &self.keys_file {
            sources = sources.with_text("keys_file", text(file)?);
        }
        if let Some(format) = self.log_format {
            let format = match format {
                LogChoice::Text => "text",
                LogChoice::Json => "json",
            };
            sources = sources.with_text("log.format", format);
        }
        for (key, value) in &self.set {
            sources = sources.with_setting(key, value);
        }
        Ok(sources.read()?)
    }
}

/// The key of a model's folder. A name may have any characters.
fn folder_key(name: &str) -> String {
    format!("models.{}.folder", serde_json::Value::from(name))
}

/// The last part of a path, also of one such as `.`.
fn name_of(folder: &Path) -> anyhow::Result<String> {
    let full = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
    let name = full.file_name().and_then(|name| name.to_str());
    let name =
        name.with_context(|| format!("{} has no name\n  give one: --model NAME=DIR", folder.display()))?;
    Ok(name.to_owned())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
