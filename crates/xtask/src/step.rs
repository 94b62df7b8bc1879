//! The steps of a task: commands that a person could type, run with a headline and a clock.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// Disables the telemetry of ONNX Runtime in every command, unless the user chose otherwise. The project's own commands set it
/// themselves; Python packages do not.
pub(crate) const TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// A command line. Its `Display` is what a person would type in the repository's root.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    input: Option<&'static str>,
}

impl CommandLine {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        CommandLine {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
        }
    }

    pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        CommandLine::new("cargo").args(arguments)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// A line for standard input, which is empty otherwise.
    pub(crate) fn input(mut self, line: &'static str) -> Self {
        self.input = Some(line);
        self
    }

    /// Runs it in `folder`, with the output of this process.
    fn status(&self, folder: &Path) -> Result<ExitStatus> {
        let mut command = self.command(folder);
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().with_context(|| self.cannot_start())?;
        if let (Some(line), Some(mut pipe)) = (self.input, child.stdin.take()) {
            // fails if the program does not read its input; its exit status decides
            let _ = writeln!(pipe, "{line}");
        }
        Ok(child.wait()?)
    }

    /// Starts it in `folder`, with the output of this process.
    pub(crate) fn start(&self, folder: &Path) -> Result<Child> {
        self.command(folder).stdin(Stdio::null()).spawn().with_context(|| self.cannot_start())
    }

    /// Runs it in `folder` and captures its output.
    pub(crate) fn output(&self, folder: &Path) -> Result<Output> {
        self.command(folder).stdin(Stdio::null()).output().with_context(|| self.cannot_start())
    }

    fn command(&self, folder: &Path) -> Command {
        // a relative program is relative to `folder` on every system
        let program = Path::new(&self.program);
        let program =
            if program.components().count() > 1 { folder.join(program) } else { program.to_owned() };
        let mut command = Command::new(program);
        if std::env::var_os(TELEMETRY_VARIABLE).is_none() {
            command.env(TELEMETRY_VARIABLE, "1");
        }
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder);
        command
    }

    fn cannot_start(&self) -> String {
        format!("`{}` cannot be started; is it installed?", self.program.to_string_lossy())
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.input {
            write!(f, "echo {} | ", quoted(line))?;
        }
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(&quoted(&self.program.to_string_lossy()))?;
        for argument in &self.arguments {
            write!(f, " {}", quoted(&argument.to_string_lossy()))?;
        }
        Ok(())
    }
}

/// A word, quoted for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@\\".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The steps of one task, with their times.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    rows: Vec<Row>,
    plan: Option<Plan>,
}

/// The number of steps that a task announced, and how many of them began.
#[derive(Debug)]
struct Plan {
    begun: usize,
    total: usize,
}

#[derive(Debug)]
struct Row {
    title: String,
    took: Duration,
    passed: bool,
}

impl Steps {
    /// Numbers the following steps up to `total`.
    pub(crate) fn announce(&mut self, total: usize) {
        self.plan = Some(Plan { begun: 0, total });
    }

    /// `2/5 title` in a task that announced its steps, else the title.
    fn headline(&mut self, title: &str) -> String {
        match &mut self.plan {
            Some(plan) if plan.begun < plan.total => {
                plan.begun += 1;
                format!("{}/{} {title}", plan.begun, plan.total)
            }
            _ => title.to_owned(),
        }
    }

    /// Runs a command in `folder`.
    ///
    /// # Errors
    /// It cannot be started or fails; the message names the step and the command.
    pub(crate) fn run(&mut self, title: &str, folder: &Path, command: &CommandLine) -> Result<()> {
        self.run_step(title, &format!("$ {command}"), || {
            let status = command.status(folder)?;
            if status.success() { Ok(()) } else { Err(anyhow!("{status}")) }
        })
        .map_err(|error| anyhow!("{error:#}\nrun it alone with\n    {command}"))
    }

    /// Runs a step that is not one command; `what` describes it.
    pub(crate) fn run_step<T>(
        &mut self,
        title: &str,
        what: &str,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        println!("\n==> {}\n    {what}", self.headline(title));
        let start = Instant::now();
        let result = action();
        let took = start.elapsed();
        self.rows.push(Row { title: title.to_owned(), took, passed: result.is_ok() });
        match &result {
            Ok(_) => println!("    {title}: done in {}", duration(took)),
            Err(_) => println!("    {title}: FAILED after {}", duration(took)),
        }
        result.with_context(|| format!("the step `{title}` failed after {}", duration(took)))
    }

    /// A table of all steps.
    pub(crate) fn summary(&self) -> String {
        let width = self.rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
        let total = self.rows.iter().map(|row| row.took).sum();
        let line =
            |title: &str, took, result: &str| format!("{title:width$}  {:>11}  {result}", duration(took));
        let mut lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| line(&row.title, row.took, if row.passed { "ok" } else { "FAILED" }))
            .collect();
        lines.push(line("total", total, ""));
        lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }
}

/// A duration to two or three digits.
fn duration(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else {
        let seconds = seconds.round() as u64;
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests;
