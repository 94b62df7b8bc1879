//! Opens every libonnxruntime that is found, each in a process of its own, and reports what it can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use jetmoe_console::setup_command;
use jetmoe_rt::{
    BackendError, ExecutionProvider, LibraryCandidate, LibraryOrigin, LibraryStatus, OnnxRuntimeLibrary,
    try_device,
};
use serde::{Deserialize, Serialize};

use super::{BackendReport, LibraryReport, ProviderReport};

/// The backend of these libraries.
const NAME: &str = "ort";

const CPU_PROVIDER: &str = "CPUExecutionProvider";

/// What the process that opens a library prints.
#[derive(Serialize, Deserialize)]
pub(super) struct Probe {
    version: String,
    /// Names of the execution providers in the library.
    providers: Vec<String>,
    /// Reasons why execution providers are not usable here, by name.
    problems: BTreeMap<String, String>,
}

/// Reports of the backend and of every library.
pub(super) fn report(named: Option<&Path>) -> (BackendReport, Vec<LibraryReport>) {
    let mut libraries: Vec<Library> =
        OnnxRuntimeLibrary::candidates(named).into_iter().map(Library::open).collect();
    let plain = libraries.len();
    let mut providers = Vec::new();
    for &provider in ExecutionProvider::ALL {
        let candidates = OnnxRuntimeLibrary::candidates_with(named, provider);
        let found = candidates.into_iter().find(|candidate| candidate.status == LibraryStatus::Found);
        let index = found.map(|found| {
            let known = libraries.iter().position(|library| library.candidate.path == found.path);
            known.unwrap_or_else(|| {
                libraries.push(Library::open(found));
                libraries.len() - 1
            })
        });
        providers.push(provider_report(provider, index.map(|index| &libraries[index])));
    }
    let backend = ort_report(&libraries[..plain], providers);
    (backend, libraries.into_iter().map(Library::report).collect())
}

/// A path of the search, and the result of opening the library there.
struct Library {
    candidate: LibraryCandidate,
    probe: Result<Probe, String>,
}

impl Library {
    fn open(candidate: LibraryCandidate) -> Self {
        Library { probe: probe(&candidate), candidate }
    }

    fn report(self) -> LibraryReport {
        let usable = self.probe.is_ok();
        let (detail, providers) = match self.probe {
            Ok(probe) => (format!("ONNX Runtime {}", probe.version), probe.providers),
            Err(why) => (why, Vec::new()),
        };
        let (path, origin) = (self.candidate.path.display().to_string(), self.candidate.origin.to_string());
        LibraryReport { path, origin, usable, detail, providers }
    }
}

/// Status of an execution provider in the library that `jetmoe run --device` loads for it.
fn provider_report(provider: ExecutionProvider, library: Option<&Library>) -> ProviderReport {
    let name = provider.onnxruntime_name();
    let (usable, detail) = match library {
        None => {
            let (setup, package) = (setup_command(Some(provider)), provider.package());
            (false, format!("in no libonnxruntime here; `{setup}` or `pip install {package}` brings one"))
        }
        Some(Library { candidate, probe }) => match probe {
            Ok(probe) if !probe.providers.iter().any(|built_in| built_in == name) => {
                (false, format!("not in {}", candidate.path.display()))
            }
            Ok(probe) => match probe.problems.get(name) {
                None => (true, format!("--device {provider}, ONNX Runtime {}", probe.version)),
                Some(why) => (false, why.clone()),
            },
            Err(why) => (false, why.clone()),
        },
    };
    ProviderReport { name: name.to_owned(), usable, detail }
}

/// `jetmoe run` loads the first usable library; a named one is loaded or refused.
fn ort_report(libraries: &[Library], providers: Vec<ProviderReport>) -> BackendReport {
    let is_named = |library: &&Library| {
        library.probe.is_ok()
            || matches!(library.candidate.origin, LibraryOrigin::Explicit | LibraryOrigin::Variable)
    };
    let Some(Library { candidate, probe }) = libraries.iter().find(is_named) else {
        let detail = "no libonnxruntime found; `cargo xtask setup` or `pip install onnxruntime` brings one";
        return BackendReport::new(NAME, false, detail.to_owned());
    };
    let (path, origin) = (candidate.path.display(), candidate.origin);
    match probe {
        Ok(probe) => {
            let cpu = ProviderReport {
                name: CPU_PROVIDER.to_owned(),
                usable: true,
                detail: "--device cpu, the default".to_owned(),
            };
            let detail = format!("ONNX Runtime {}, {path} ({origin})", probe.version);
            let providers = std::iter::once(cpu).chain(providers).collect();
            BackendReport { providers, ..BackendReport::new(NAME, true, detail) }
        }
        Err(why) => {
            let detail = format!("{path} ({origin}) is to be taken but cannot be used: {why}");
            BackendReport::new(NAME, false, detail)
        }
    }
}

/// Opens a library in a process of its own, because a process can load only one and a damaged one may crash it.
fn probe(candidate: &LibraryCandidate) -> Result<Probe, String> {
    if let LibraryStatus::Missing(why) = &candidate.status {
        return Err(why.clone());
    }
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let output = Command::new(program)
        .args(["devices", "--probe"])
        .arg(&candidate.path)
        .output()
        .map_err(|error| format!("cannot start a process to open it: {error}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        // the report shows the path already
        let path = format!("{} cannot be used as ONNX Runtime: ", candidate.path.display());
        let message = message.trim().trim_start_matches("error: ").trim_start_matches(&path);
        return Err(if message.is_empty() {
            format!("opening it ended with {}", output.status)
        } else {
            message.to_owned()
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("opening it gave no answer: {error}"))
}

impl Probe {
    /// Opens a library in this process and tries its execution providers.
    pub(super) fn of_library(path: &Path) -> anyhow::Result<Self> {
        let library = OnnxRuntimeLibrary::find(Some(path))?;
        let providers = library.execution_providers()?;
        let mut problems = BTreeMap::new();
        for provider in ExecutionProvider::ALL {
            let name = provider.onnxruntime_name();
            if !providers.iter().any(|built_in| built_in == name) {
                continue;
            }
            let device = provider.to_string().parse()?;
            if let Err(error) = try_device(&library, device) {
                let why = match error {
                    BackendError::Device { message, .. } => message,
                    other => other.to_string(),
                };
                problems.insert(name.to_owned(), why);
            }
        }
        Ok(Probe { version: library.version().to_owned(), providers, problems })
    }
}
