//! A folder to work in, with models under short names, where commands are typed as a user would type them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jetmoe_rt::cache_folder;
use serde_json::Value;
use tempfile::TempDir;

use crate::{NAME, PROGRAM};

/// The folder. Commands run inside it, and it is also their home, so that no cache or setting of this user counts; but
/// the libonnxruntime that this user has is found.
pub(crate) struct Workbench {
    folder: TempDir,
}

impl Workbench {
    pub(crate) fn new() -> Self {
        let bench = Workbench { folder: tempfile::tempdir().unwrap() };
        if let Some(libraries) = cache_folder().filter(|folder| folder.is_dir()) {
            fs::create_dir_all(bench.path("home/.cache/jetmoe")).unwrap();
            symlink(&libraries, &bench.path("home/.cache/jetmoe/onnxruntime"));
        }
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a checkpoint of the fixtures here, under its own name.
    pub(crate) fn fixture(&self, name: &str) {
        symlink(&fixture(name), &self.path(name));
    }

    /// Puts a copy of a checkpoint here, to be changed.
    pub(crate) fn copy(&self, name: &str, copy: &str) -> PathBuf {
        copy_folder(&fixture(name), &self.path(copy));
        self.path(copy)
    }

    /// A command line, its words set apart by spaces; double quotes hold words together.
    pub(crate) fn command(&self, line: &str) -> CommandLine<'_> {
        let mut words = words(line);
        assert_eq!(words.remove(0), NAME, "these tests are about {NAME}");
        CommandLine { bench: self, line: line.to_owned(), words, input: None, environment: Vec::new() }
    }

    /// Types a command and waits for its end.
    pub(crate) fn run(&self, line: &str) -> Ended {
        self.command(line).run()
    }

    /// Everything that lies in a folder of this one, sorted; nothing if it does not exist.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().into_iter().flatten() {
                let path = entry.unwrap().path();
                files.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        files.sort();
        files
    }
}

/// A folder of `tests/fixtures`, found by its name.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("tests/fixtures"));
    let fixtures = fixtures.into_iter().find(|folder| folder.is_dir()).unwrap();
    let places = ["models", "goldens"].map(|place| fixtures.join(place).join(name));
    let place = places.iter().find(|place| place.is_dir());
    place.unwrap_or_else(|| panic!("no fixture is called {name}")).clone()
}

/// Changes a JSON file.
pub(crate) fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_string_pretty(&value).unwrap()).unwrap();
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}

fn symlink(target: &Path, link: &Path) {
    #[cfg(unix)]
    std::os::unix::fs::symlink(target, link).unwrap();
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(target, link).unwrap();
}

fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut begun) = (false, false);
    for letter in line.chars() {
        match letter {
            '"' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun {
                    words.push(String::new());
                }
                begun = false;
            }
            letter => {
                begun = true;
                words.last_mut().unwrap().push(letter);
            }
        }
    }
    if !begun {
        words.pop();
    }
    words
}

/// A command that was not entered yet.
pub(crate) struct CommandLine<'b> {
    bench: &'b Workbench,
    line: String,
    words: Vec<String>,
    input: Option<String>,
    environment: Vec<(String, OsString)>,
}

/// What a user's shell would pass on and the commands need.
const INHERITED: [&str; 7] =
    ["PATH", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "SystemRoot"];

impl CommandLine<'_> {
    /// What is piped into it; by default nothing.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    pub(crate) fn environment(mut self, variable: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((variable.to_owned(), value.into()));
        self
    }

    pub(crate) fn run(self) -> Ended {
        let mut command = assert_cmd::Command::from_std(self.standard_command());
        let output = command.write_stdin(self.input.clone().unwrap_or_default()).output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.bench.folder.path().to_str().unwrap(), "[FOLDER]")
        };
        let typed = match &self.input {
            Some(input) => format!("printf {input:?} | {}", self.line),
            None => self.line.clone(),
        };
        Ended {
            typed,
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Starts it, with pipes for what it prints.
    pub(crate) fn start(self) -> Child {
        self.standard_command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn standard_command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(&self.words).current_dir(self.bench.folder.path()).env_clear();
        for variable in INHERITED {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        command.env("HOME", self.bench.path("home")).env("HF_HUB_OFFLINE", "1");
        command.envs(self.environment.iter().map(|(variable, value)| (variable, value)));
        command
    }
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    typed: String,
    /// `None` if a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// It did its work, and in a pipe it says nothing beside its result.
    #[track_caller]
    pub(crate) fn succeeded(&self) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{self:#?}");
        &self.stdout
    }

    /// It refused its input: with the status for that, a message on standard error, and no result.
    #[track_caller]
    pub(crate) fn refused(&self) -> &str {
        assert_eq!((self.status, self.stdout.as_str()), (Some(2), ""), "{self:#?}");
        assert!(self.stderr.contains("error: ") && !self.stderr.contains("panicked"), "{self:#?}");
        &self.stderr
    }

    /// Transcripts of several commands.
    pub(crate) fn transcripts(ended: &[Self]) -> String {
        ended.iter().map(Self::transcript).collect::<Vec<_>>().join("\n")
    }

    /// What a terminal would show, with the two outputs told apart.
    pub(crate) fn transcript(&self) -> String {
        let mut text = format!("$ {}\n", self.typed);
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

/// What differs from one machine or version to the next.
pub(crate) const FILTERS: [(&str, &str); 6] = [
    (r"[0-9a-f]{64}", "[SHA256]"),
    (r"\b(ort|tract|ONNX Runtime) \d+\.\d+\.\d+\b", "$1 [VERSION]"),
    (r"\b(jetmoe|jetmoe-export) \d+\.\d+\.\d+\b", "$1 [VERSION]"),
    (r"\b\d\.\de-?\d+\b", "[ERROR]"),
    (r"\b\d+(\.\d+)?e-\d+\b", "[ERROR]"),
    (r"\(os error \d+\)", "(os error)"),
];

/// Compares one or several commands that ended with the snapshot of the test's name.
macro_rules! assert_transcript {
    ($($ended:expr),+ $(,)?) => {
        $crate::workbench::assert_text!([$($ended.transcript()),+].join("\n"), [])
    };
}

/// Compares transcripts with the snapshot of the test's name, after more replacements than [`FILTERS`].
macro_rules! assert_text {
    ($text:expr, $replacements:expr) => {{
        let mut filters = $crate::workbench::FILTERS.to_vec();
        filters.extend_from_slice(&$replacements);
        insta::with_settings!({
            filters => filters,
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($text) });
    }};
}

pub(crate) use {assert_text, assert_transcript};
