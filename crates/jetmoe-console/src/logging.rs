//! Log lines: of a command like its errors and notes, of a server with time and fields.

use std::{fmt, io};

use anyhow::Context;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::escape_controls;

/// Logs warnings to standard error, or what `RUST_LOG` selects. Dependencies log what they also return as errors, so
/// their messages are left out.
pub(crate) fn start_logging() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,ort=error,tract=error,hf_hub=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .event_format(CommandFormat)
        .init();
}

/// The form of a server's log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLines {
    /// For people.
    Text,
    /// An object a line, for programs.
    Json,
}

/// Logs to standard error with time, level and fields: what `filter` selects in the syntax of `RUST_LOG`, without it what that
/// variable selects, without both informations. For a command that [`run_server`](crate::run_server) starts. A second call has no
/// effect.
///
/// # Errors
/// A filter that cannot be parsed.
pub fn start_server_logging(lines: LogLines, filter: Option<&str>) -> anyhow::Result<()> {
    const DEFAULT: &str = "info,ort=error,tract=error";
    let filter = match filter {
        Some(filter) => EnvFilter::try_new(filter).with_context(|| {
            format!("the filter of the log is {filter:?}, expected one such as info or jetmoe=debug")
        })?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // there is a logger only if this was called before
    let _started = match lines {
        LogLines::Text => builder.try_init(),
        LogLines::Json => builder.json().try_init(),
    };
    Ok(())
}

struct CommandFormat;

impl<S, N> FormatEvent<S, N> for CommandFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            // only RUST_LOG shows these, so say which module logged them
            level => write!(writer, "{} {}: ", level.as_str().to_lowercase(), event.metadata().target())?,
        }
        let mut message = String::new();
        context.format_fields(Writer::new(&mut message), event)?;
        writeln!(writer, "{}", escape_controls(&message))
    }
}
