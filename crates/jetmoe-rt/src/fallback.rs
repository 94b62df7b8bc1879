//! Which backend and which device a model is loaded into, and what is tried next.

use std::fs::File;
use std::sync::Arc;

use jetmoe_artifact::{Artifact, Error as ArtifactError, GraphRecord};
use jetmoe_backend::{
    Backend, Device, Error as BackendError, GraphSource, LoadOptions, LoadedGraph, MemoryShortage,
    available_memory,
};
use jetmoe_checkpoint::PrivateCopy;
use jetmoe_onnx::{check_graph, observe};

use crate::error::at_least_one;
use crate::{Error, Result, backends, choose_graph, registry};

type Loaded<'a> = (&'a GraphRecord, Arc<dyn LoadedGraph>);

/// Loads into the requested backend; without one, into the first usable one on this machine.
pub(crate) fn load<'a>(artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    at_least_one("max_sequence_length", options.max_sequence_length.unwrap_or(1))?;
    at_least_one("threads", options.threads.unwrap_or(1))?;
    options.device.check()?;
    match options.device {
        Device::Auto => load_on_first_device(artifact, options),
        _ => load_on_device(artifact, options),
    }
}

/// Loads onto the first device of [`Device::auto_order`] that is usable, and says why the others are not.
fn load_on_first_device<'a>(artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    let mut passed_over = String::new();
    let candidates = options.backend.as_ref().map_or(backends(), std::slice::from_ref);
    for device in Device::auto_order().into_iter().filter(|device| *device != Device::Cpu) {
        let Some(backend) = candidates.iter().find(|backend| backend.has_device(&device)) else { continue };
        let name = device.to_string();
        match load_into(*backend, artifact, &options.clone().with_device(device)) {
            Ok(loaded) => {
                tracing::warn!("device auto takes {name}{passed_over}");
                return Ok(loaded);
            }
            // an error of the graph itself occurs on the CPU again
            Err(error) => {
                let why = match error {
                    Error::Backend(BackendError::Device { message, .. }) => message,
                    other => other.to_string(),
                };
                passed_over.push_str(&format!("\n  not {name}: {}", why.lines().next().unwrap_or(&why)));
            }
        }
    }
    let loaded = load_on_device(artifact, &options.clone().with_device(Device::Cpu))?;
    if !passed_over.is_empty() {
        tracing::warn!("device auto takes {}{passed_over}", Device::Cpu);
    }
    Ok(loaded)
}

fn load_on_device<'a>(artifact: &'a Artifact, options: &LoadOptions) -> Result<Loaded<'a>> {
    if let Some(backend) = options.backend {
        return load_into(backend, artifact, options);
    }
    if options.onnxruntime_library.is_some() {
        // whoever names a library wants no other backend
        return load_into(registry::backend("ort")?, artifact, options);
    }
    let mut candidates = backends().iter().filter(|backend| backend.has_device(&options.device)).peekable();
    while let Some(backend) = candidates.next() {
        match (load_into(*backend, artifact, options), candidates.peek()) {
            (Err(error @ Error::Backend(BackendError::LibraryNotFound { .. })), Some(next)) => {
                tracing::warn!("{error}\n  going on with {}", next.name());
            }
            (result, _) => return result,
        }
    }
    Err(Error::NoBackend { device: options.device.to_string() })
}

/// Loads into one backend.
pub(crate) fn load_into<'a>(
    backend: &dyn Backend,
    artifact: &'a Artifact,
    options: &LoadOptions,
) -> Result<Loaded<'a>> {
    if !backend.has_device(&options.device) {
        return Err(Error::CpuOnly { backend: backend.name(), device: options.device.to_string() });
    }
    let record = choose_graph(artifact, backend, options)?;
    if options.check_memory {
        check_memory(backend, artifact, record, options)?;
    }
    let mut source = GraphSource::read(artifact, record)?;
    if !options.trust_graph {
        check_graph(&source.path, &source.graph, artifact.config(), record)?;
    }
    if !options.observed.is_empty() {
        let observed = observe(&source.path, &source.graph, artifact.config(), record, &options.observed)?;
        source.graph = observed.graph;
        source.signature = observed.signature;
    }
    if let Some(path) = &options.trace {
        // a file that cannot be written is refused before anything is loaded
        File::create(path).map_err(|source| BackendError::Trace { path: path.clone(), source })?;
    }
    let copy = options.private_copy.as_deref().map(|folder| PrivateCopy::create(&source.data, folder));
    let copy = copy.transpose().map_err(ArtifactError::from)?;
    if let Some(copy) = &copy {
        copy.path().clone_into(&mut source.data);
    }
    if options.verify_digests || copy.is_some() {
        artifact.check_weights(record, &source.data)?;
    }
    let graph = backend.load(&source, options)?;
    Ok((record, graph))
}

/// Refuses a graph that will not fit in memory: of the machine, or of the device. What other devices than NVIDIA GPUs have is not
/// known, nor in which form they hold the weights.
fn check_memory(
    backend: &dyn Backend,
    artifact: &Artifact,
    record: &GraphRecord,
    options: &LoadOptions,
) -> Result<()> {
    let (device, shortage) = match &options.device {
        Device::Cpu => {
            let copy = options.private_copy.as_deref().filter(|folder| PrivateCopy::takes_memory(folder));
            let needed = backend.estimate_memory(record, options);
            let needed = needed.saturating_add(copy.map_or(0, |_| record.data.size));
            let short = available_memory().filter(|available| *available < needed);
            (None, short.map(|available| MemoryShortage { needed, available }))
        }
        device => (Some(device.to_string()), backend.device_shortage(record, device)),
    };
    match shortage {
        None => Ok(()),
        Some(MemoryShortage { needed, available }) => {
            let graph = artifact.path(&record.graph);
            Err(Error::Memory { backend: backend.name(), device, graph, needed, available })
        }
    }
}
