use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use jetmoe_rt::{LibraryCandidate, LibraryOrigin, LibraryStatus, OnnxRuntimeLibrary, Runtime};
use serde::{Deserialize, Serialize};

use super::{ExitStatus, Format, print, print_json};

/// Show which runtimes and execution providers are usable here, and why the others are not.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// The libonnxruntime to take, as with the other commands.
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Print text or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
    /// Open one library, print what it is as JSON, and end. A process can hold only one, so each is opened in another.
    #[arg(long, hide = true, value_name = "FILE")]
    probe: Option<PathBuf>,
}

/// The form of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Report {
    schema_version: u32,
    backends: Vec<BackendReport>,
    onnxruntime_libraries: Vec<LibraryReport>,
}

#[derive(Serialize)]
struct BackendReport {
    name: String,
    usable: bool,
    detail: String,
    providers: Vec<ProviderReport>,
}

#[derive(Serialize)]
struct ProviderReport {
    name: String,
    usable: bool,
    detail: String,
}

#[derive(Serialize)]
struct LibraryReport {
    path: String,
    origin: String,
    usable: bool,
    detail: String,
}

/// What the process that opens a library answers.
#[derive(Serialize, Deserialize)]
struct Probe {
    version: String,
    providers: Vec<String>,
}

/// Version of the JSON form; fields are added without a new version, but none is removed.
const SCHEMA: u32 = 1;

/// Execution providers that people ask for, and what brings them.
const PROVIDERS: &[(&str, &str)] = &[
    ("CPUExecutionProvider", "every libonnxruntime has it"),
    ("CUDAExecutionProvider", "pip install onnxruntime-gpu"),
    ("TensorrtExecutionProvider", "pip install onnxruntime-gpu"),
    ("OpenVINOExecutionProvider", "pip install onnxruntime-openvino"),
];

impl Devices {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        if let Some(path) = &self.probe {
            let library = OnnxRuntimeLibrary::find(Some(path))?;
            let providers = execution_providers(&library)?;
            print_json(&Probe { version: library.version().to_owned(), providers })?;
            return Ok(ExitStatus::Success);
        }
        let report = self.report();
        match self.format {
            Format::Json => print_json(&report)?,
            Format::Table => print(&text(&report))?,
        }
        Ok(ExitStatus::Success)
    }

    fn report(&self) -> Report {
        let candidates = OnnxRuntimeLibrary::candidates(self.onnxruntime.as_deref());
        let probes: Vec<Result<Probe, String>> = candidates.iter().map(probe).collect();
        let libraries = candidates.iter().zip(&probes).map(|(candidate, probe)| LibraryReport {
            path: candidate.path.display().to_string(),
            origin: candidate.origin.to_string(),
            usable: probe.is_ok(),
            detail: match probe {
                Ok(probe) => format!("ONNX Runtime {}", probe.version),
                Err(why) => why.clone(),
            },
        });
        Report {
            schema_version: SCHEMA,
            backends: vec![ort_report(&candidates, &probes), tract_report(), reference_report()],
            onnxruntime_libraries: libraries.collect(),
        }
    }
}

/// The library that `jetmoe run` would take is the first usable one; but one that somebody named is taken or refused.
fn ort_report(candidates: &[LibraryCandidate], probes: &[Result<Probe, String>]) -> BackendReport {
    let name = Runtime::Ort.to_string();
    if !Runtime::Ort.is_built_in() {
        let detail = "not in this build; build with the cargo feature `ort`".to_owned();
        return BackendReport { name, usable: false, detail, providers: Vec::new() };
    }
    let is_named = |candidate: &LibraryCandidate| {
        matches!(candidate.origin, LibraryOrigin::Given | LibraryOrigin::Variable)
    };
    let taken = candidates.iter().zip(probes).find(|(candidate, probe)| probe.is_ok() || is_named(candidate));
    let (candidate, probe) = match taken {
        Some((candidate, Ok(probe))) => (candidate, probe),
        Some((candidate, Err(why))) => {
            let (path, origin) = (candidate.path.display(), candidate.origin);
            let detail = format!("{path} ({origin}) is to be taken but cannot be used: {why}");
            return BackendReport { name, usable: false, detail, providers: Vec::new() };
        }
        None => {
            let detail =
                "no libonnxruntime found; `cargo xtask setup` or `pip install onnxruntime` brings one";
            return BackendReport { name, usable: false, detail: detail.to_owned(), providers: Vec::new() };
        }
    };
    let mut providers: Vec<ProviderReport> = PROVIDERS
        .iter()
        .map(|(provider, remedy)| {
            let built_in = probe.providers.iter().any(|name| name == provider);
            let is_cpu = *provider == "CPUExecutionProvider";
            let detail = match (built_in, is_cpu) {
                (true, true) => "in use".to_owned(),
                (true, false) => {
                    "in this library, but this version of jetmoe computes on the CPU provider only".to_owned()
                }
                (false, _) => format!("not in this library; {remedy}"),
            };
            ProviderReport { name: (*provider).to_owned(), usable: built_in && is_cpu, detail }
        })
        .collect();
    let others = probe.providers.iter().filter(|name| PROVIDERS.iter().all(|(known, _)| known != name));
    providers.extend(others.map(|name| ProviderReport {
        name: name.clone(),
        usable: false,
        detail: "in this library, but not used by jetmoe".to_owned(),
    }));
    let detail =
        format!("ONNX Runtime {}, {} ({})", probe.version, candidate.path.display(), candidate.origin);
    BackendReport { name, usable: true, detail, providers }
}

fn tract_report() -> BackendReport {
    let (usable, detail) = match Runtime::Tract.built_in_version() {
        Some(version) => (true, format!("tract {version}, built in; any CPU")),
        None => (false, "not in this build; build with the cargo feature `tract`".to_owned()),
    };
    BackendReport { name: Runtime::Tract.to_string(), usable, detail, providers: Vec::new() }
}

fn reference_report() -> BackendReport {
    BackendReport {
        name: "reference".to_owned(),
        usable: true,
        detail: "Candle, built in; runs checkpoints in float32 on any CPU".to_owned(),
        providers: Vec::new(),
    }
}

/// Opens a library in a process of its own, since a process can hold only one and a bad one may take it down.
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
        // the path stands in front of every detail already
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

#[cfg(feature = "ort")]
fn execution_providers(library: &OnnxRuntimeLibrary) -> anyhow::Result<Vec<String>> {
    Ok(library.execution_providers()?)
}

#[cfg(not(feature = "ort"))]
fn execution_providers(_library: &OnnxRuntimeLibrary) -> anyhow::Result<Vec<String>> {
    Ok(Vec::new())
}

fn text(report: &Report) -> String {
    let mark = |usable: bool| if usable { "usable" } else { "no" };
    let mut text = String::from("backends\n");
    for backend in &report.backends {
        text.push_str(&format!("  {:<10} {:<7} {}\n", backend.name, mark(backend.usable), backend.detail));
        for provider in &backend.providers {
            text.push_str(&format!(
                "    {:<26} {:<7} {}\n",
                provider.name,
                mark(provider.usable),
                provider.detail
            ));
        }
    }
    text.push_str("\nlibonnxruntime, in the order of search\n");
    for library in &report.onnxruntime_libraries {
        text.push_str(&format!(
            "  {:<7} {} ({}): {}\n",
            mark(library.usable),
            library.path,
            library.origin,
            library.detail
        ));
    }
    text
}
