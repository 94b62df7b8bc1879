use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use jetmoe_kernels::Isa;
#[cfg(feature = "ort")]
use jetmoe_rt::Error;
use jetmoe_rt::{LibraryCandidate, LibraryOrigin, LibraryStatus, OnnxRuntimeLibrary, Provider, Runtime};
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
    kernels: KernelReport,
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

/// What computes the operators of native graphs.
#[derive(Serialize)]
struct KernelReport {
    /// `None` if the one that the environment names is not available.
    chosen: Option<String>,
    available: Vec<String>,
    detail: String,
}

#[derive(Serialize)]
struct LibraryReport {
    path: String,
    origin: String,
    usable: bool,
    detail: String,
    providers: Vec<String>,
}

/// What the process that opens a library answers.
#[derive(Serialize, Deserialize)]
struct Probe {
    version: String,
    /// The providers that it was built with, by ONNX Runtime's names.
    providers: Vec<String>,
    /// Why those of them that jetmoe uses cannot be used here, by ONNX Runtime's names.
    problems: BTreeMap<String, String>,
}

/// Version of the JSON form; fields are added without a new version, but none is removed.
const SCHEMA: u32 = 1;

const CPU_PROVIDER: &str = "CPUExecutionProvider";

impl Devices {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        if let Some(path) = &self.probe {
            let library = OnnxRuntimeLibrary::find(Some(path))?;
            print_json(&probe(&library)?)?;
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
        let named = self.onnxruntime.as_deref();
        let mut libraries: Vec<Library> =
            OnnxRuntimeLibrary::candidates(named).into_iter().map(Library::open).collect();
        let plain = libraries.len();
        let mut providers = Vec::new();
        for &provider in Provider::ALL {
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
        let backends = vec![ort_report(&libraries[..plain], providers), tract_report(), reference_report()];
        let onnxruntime_libraries = libraries.into_iter().map(Library::report).collect();
        Report { schema_version: SCHEMA, backends, kernels: kernel_report(), onnxruntime_libraries }
    }
}

/// A place for libonnxruntime, and what was found when the library there was opened.
struct Library {
    candidate: LibraryCandidate,
    probe: Result<Probe, String>,
}

impl Library {
    fn open(candidate: LibraryCandidate) -> Self {
        Library { probe: probe_in_child(&candidate), candidate }
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

/// What the library says that `jetmoe run --device` would take for a provider.
fn provider_report(provider: Provider, library: Option<&Library>) -> ProviderReport {
    let name = provider.onnxruntime_name();
    let (usable, detail) = match library {
        None => {
            let (setup, package) = (provider.setup(), provider.package());
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

/// The library that `jetmoe run` would take is the first usable one; but one that somebody named is taken or refused.
fn ort_report(libraries: &[Library], providers: Vec<ProviderReport>) -> BackendReport {
    let name = Runtime::Ort.to_string();
    if !Runtime::Ort.is_built_in() {
        let detail = "not in this build; build with the cargo feature `ort`".to_owned();
        return BackendReport { name, usable: false, detail, providers: Vec::new() };
    }
    let is_named = |library: &&Library| {
        library.probe.is_ok()
            || matches!(library.candidate.origin, LibraryOrigin::Given | LibraryOrigin::Variable)
    };
    let Some(Library { candidate, probe }) = libraries.iter().find(is_named) else {
        let detail = "no libonnxruntime found; `cargo xtask setup` or `pip install onnxruntime` brings one";
        return BackendReport { name, usable: false, detail: detail.to_owned(), providers: Vec::new() };
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
            BackendReport { name, usable: true, detail, providers }
        }
        Err(why) => {
            let detail = format!("{path} ({origin}) is to be taken but cannot be used: {why}");
            BackendReport { name, usable: false, detail, providers: Vec::new() }
        }
    }
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

fn kernel_report() -> KernelReport {
    let available: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    match Isa::from_env_or_best() {
        Ok(chosen) => {
            let detail = format!("has {}; JETMOE_KERNELS forces one", available.join(", "));
            KernelReport { chosen: Some(chosen.to_string()), available, detail }
        }
        Err(error) => KernelReport { chosen: None, available, detail: error.to_string() },
    }
}

/// Opens a library in a process of its own, since a process can hold only one and a bad one may take it down.
fn probe_in_child(candidate: &LibraryCandidate) -> Result<Probe, String> {
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

/// What this process's library is, and which of its providers can be used.
#[cfg(feature = "ort")]
fn probe(library: &OnnxRuntimeLibrary) -> anyhow::Result<Probe> {
    let providers = library.execution_providers()?;
    let mut problems = BTreeMap::new();
    for provider in Provider::ALL {
        let name = provider.onnxruntime_name();
        if !providers.iter().any(|built_in| built_in == name) {
            continue;
        }
        let device = provider.to_string().parse().map_err(anyhow::Error::msg)?;
        if let Err(error) = library.try_device(device) {
            let why = match error {
                Error::Device { message, .. } => message,
                other => other.to_string(),
            };
            problems.insert(name.to_owned(), why);
        }
    }
    Ok(Probe { version: library.version().to_owned(), providers, problems })
}

#[cfg(not(feature = "ort"))]
fn probe(library: &OnnxRuntimeLibrary) -> anyhow::Result<Probe> {
    let (providers, problems) = (Vec::new(), BTreeMap::new());
    Ok(Probe { version: library.version().to_owned(), providers, problems })
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
    let KernelReport { chosen, detail, .. } = &report.kernels;
    text.push_str(&match chosen {
        Some(chosen) => format!("\nkernels: {chosen} ({detail})\n"),
        None => format!("\nkernels: none; {detail}\n"),
    });
    text.push_str("\nlibonnxruntime, in the order of search\n");
    for library in &report.onnxruntime_libraries {
        text.push_str(&format!(
            "  {:<7} {} ({}): {}\n",
            mark(library.usable),
            library.path,
            library.origin,
            library.detail
        ));
        if !library.providers.is_empty() {
            text.push_str(&format!("          {}\n", library.providers.join(", ")));
        }
    }
    text
}
