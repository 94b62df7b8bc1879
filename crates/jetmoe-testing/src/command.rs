//! Commands typed as a user types them, in a folder of their own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{files, fixtures};

/// A temporary folder that commands run in. It is also their home, so that no cache and no setting of this user counts.
pub struct TestContext {
    folder: TempDir,
    name: &'static str,
    program: &'static str,
}

impl TestContext {
    /// A context for one command: its name, and its executable. `libraries` is the folder that this user's
    /// libonnxruntime is cached in; the command finds it there.
    pub fn new(name: &'static str, program: &'static str, libraries: Option<&Path>) -> Self {
        let context = TestContext { folder: tempfile::tempdir().unwrap(), name, program };
        if let Some(libraries) = libraries.filter(|folder| folder.is_dir()) {
            fs::create_dir_all(context.path("home/.cache/jetmoe")).unwrap();
            files::symlink(libraries, &context.path("home/.cache/jetmoe/onnxruntime"));
        }
        context
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Links a checkpoint of the fixtures, under its own name.
    pub fn fixture(&self, name: &str) {
        files::symlink(&fixtures::checkpoint(name), &self.path(name));
    }

    /// Copies a checkpoint of the fixtures, to be changed.
    pub fn copy(&self, name: &str, copy: &str) -> PathBuf {
        files::copy_folder(&fixtures::checkpoint(name), &self.path(copy));
        self.path(copy)
    }

    /// A command line, quoted as in a POSIX shell.
    pub fn command(&self, line: &str) -> CommandLine<'_> {
        let mut words = shlex::split(line).unwrap_or_else(|| panic!("quotes do not match: {line}"));
        assert_eq!(words.remove(0), self.name, "these tests are about {}", self.name);
        CommandLine { context: self, line: line.to_owned(), words, input: None, environment: Vec::new() }
    }

    /// Runs a command line to its end.
    pub fn run(&self, line: &str) -> CommandOutput {
        self.command(line).run()
    }

    /// Checks that no command has left what ONNX Runtime's telemetry writes. The commands run without the variables by which
    /// ONNX Runtime recognises a CI machine, where it writes nothing.
    #[track_caller]
    pub fn assert_no_telemetry(&self) {
        let home = self.files("home");
        let written: Vec<_> = home.iter().filter(|file| file.contains(TELEMETRY_FOLDER)).collect();
        assert!(written.is_empty(), "telemetry of ONNX Runtime: {written:?}");
    }

    /// Every file and folder below a path, sorted; none if it does not exist.
    pub fn files(&self, folder: &str) -> Vec<String> {
        files::list(&self.path(folder))
    }
}

/// A command line that was not run yet.
pub struct CommandLine<'c> {
    context: &'c TestContext,
    line: String,
    words: Vec<String>,
    input: Option<String>,
    environment: Vec<(String, OsString)>,
}

/// Where ONNX Runtime writes what its telemetry needs, below the user's cache folder.
const TELEMETRY_FOLDER: &str = "Microsoft/DeveloperTools";

/// What a user's shell would pass on and the commands need.
const INHERITED: [&str; 7] =
    ["PATH", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "SystemRoot"];

/// When a command is killed, which fails its test: something hangs.
const WATCHDOG: Duration = Duration::from_secs(600);

impl CommandLine<'_> {
    /// Text for standard input, which is empty by default.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, variable: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((variable.to_owned(), value.into()));
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> CommandOutput {
        let mut command = assert_cmd::Command::from_std(self.standard_command());
        command.write_stdin(self.input.clone().unwrap_or_default()).timeout(WATCHDOG);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.context.folder.path().to_str().unwrap(), "[FOLDER]")
        };
        let line = match &self.input {
            Some(input) => format!("printf {input:?} | {}", self.line),
            None => self.line.clone(),
        };
        self.context.assert_no_telemetry();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        CommandOutput { line, status: output.status.code(), stdout, stderr }
    }

    /// Starts it, with pipes for what it prints.
    pub fn start(self) -> Child {
        let mut command = self.standard_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts it, with pipes for what it prints and for its input.
    pub fn start_with_input(self) -> Child {
        let mut command = self.standard_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn standard_command(&self) -> Command {
        let mut command = Command::new(self.context.program);
        command.args(&self.words).current_dir(self.context.folder.path()).env_clear();
        for variable in INHERITED {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        command.env("HOME", self.context.path("home")).env("HF_HUB_OFFLINE", "1");
        command.envs(self.environment.iter().map(|(variable, value)| (variable, value)));
        command
    }
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct CommandOutput {
    line: String,
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// The result of a command that succeeded and, in a pipe, printed nothing else.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{self:#?}");
        &self.stdout
    }

    /// The result of a command that succeeded and printed a note.
    #[track_caller]
    pub fn noted(&self, note: &str) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), note), "{self:#?}");
        &self.stdout
    }

    /// The message of a command that refused its input: it exits with 2 and prints no result.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert_eq!((self.status, self.stdout.as_str()), (Some(2), ""), "{self:#?}");
        assert!(self.stderr.contains("error: ") && !self.stderr.contains("panicked"), "{self:#?}");
        &self.stderr
    }

    /// Transcripts of several commands.
    pub fn transcripts(outputs: &[Self]) -> String {
        outputs.iter().map(Self::transcript).collect::<Vec<_>>().join("\n")
    }

    /// What a terminal would show, with the two outputs told apart.
    pub fn transcript(&self) -> String {
        let mut text = format!("$ {}\n", self.line);
        for (name, output) in [("", &self.stdout), ("--- standard error\n", &self.stderr)] {
            if !output.is_empty() {
                text.push_str(name);
                text.push_str(output);
            }
        }
        match self.status {
            Some(0) => {}
            Some(status) => text.push_str(&format!("--- exit status {status}\n")),
            None => text.push_str("--- ended by a signal\n"),
        }
        text
    }
}

/// Replaces what differs from one machine or version to the next.
pub const FILTERS: [(&str, &str); 6] = [
    (r"[0-9a-f]{64}", "[SHA256]"),
    (r"\b(ort|tract|ONNX Runtime) \d+\.\d+\.\d+\b", "$1 [VERSION]"),
    (r"\b(jetmoe|jetmoe-export) \d+\.\d+\.\d+\b", "$1 [VERSION]"),
    (r"\b\d\.\de-?\d+\b", "[ERROR]"),
    (r"\b\d+(\.\d+)?e-\d+\b", "[ERROR]"),
    (r"\(os error \d+\)", "(os error)"),
];

/// Compares the transcripts of commands with the snapshot of the test's name.
#[macro_export]
macro_rules! assert_transcript {
    ($($output:expr),+ $(,)?) => {
        $crate::assert_text!([$($output.transcript()),+].join("\n"), [])
    };
}

/// Compares transcripts with the snapshot of the test's name, after more replacements than [`FILTERS`].
#[macro_export]
macro_rules! assert_text {
    ($text:expr, $replacements:expr) => {{
        let mut filters = $crate::FILTERS.to_vec();
        filters.extend_from_slice(&$replacements);
        $crate::insta::with_settings!({
            filters => filters,
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { $crate::insta::assert_snapshot!($text) });
    }};
}
