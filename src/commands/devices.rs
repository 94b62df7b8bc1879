//! `jetmoe devices`: which backends, execution providers and libraries are usable.

#[cfg(feature = "ort")]
mod libraries;

use std::path::PathBuf;

use clap::Args;
use jetmoe_conformance::BackendName;
use jetmoe_kernels::Isa;
use jetmoe_rt::{BACKEND_NAMES, backend};
use serde::Serialize;

#[cfg(feature = "ort")]
use super::print_json;
use super::{ExitStatus, Format, SCHEMA};

/// Show which backends and execution providers are usable here, and why the others are not.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// The libonnxruntime to load, as with the other commands.
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Print a table or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
    /// Open one library and describe it as JSON. A process can load only one, so each is opened in a process of its own.
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
    /// `None` if the one that the environment names is not usable.
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

impl Devices {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        #[cfg(feature = "ort")]
        if let Some(path) = &self.probe {
            print_json(&libraries::Probe::of_library(path)?)?;
            return Ok(ExitStatus::Success);
        }
        let report = self.report();
        self.format.print(&report, || text(&report))?;
        Ok(ExitStatus::Success)
    }

    fn report(&self) -> Report {
        #[cfg(feature = "ort")]
        let (ort, onnxruntime_libraries) = libraries::report(self.onnxruntime.as_deref());
        #[cfg(not(feature = "ort"))]
        let (ort, onnxruntime_libraries) = (BackendReport::not_built_in("ort"), Vec::new());
        let mut ort = Some(ort);
        let backends =
            BACKEND_NAMES.iter().map(|name| match backend(name).map(|backend| backend.version()) {
                Err(_) => BackendReport::not_built_in(name),
                Ok(Some(version)) => {
                    BackendReport::new(name, true, format!("{name} {version}, built in; any CPU"))
                }
                // its version is that of a shared library
                Ok(None) => ort.take().unwrap_or_else(|| BackendReport::not_built_in(name)),
            });
        let mut backends: Vec<BackendReport> = backends.collect();
        backends.push(BackendReport::new(
            BackendName::REFERENCE.as_str(),
            true,
            "Candle, built in; runs checkpoints in float32 on any CPU".to_owned(),
        ));
        Report { schema_version: SCHEMA, backends, kernels: kernel_report(), onnxruntime_libraries }
    }
}

impl BackendReport {
    fn new(name: &str, usable: bool, detail: String) -> Self {
        BackendReport { name: name.to_owned(), usable, detail, providers: Vec::new() }
    }

    fn not_built_in(name: &str) -> Self {
        Self::new(name, false, format!("not in this build; build with the cargo feature `{name}`"))
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
