//! A graph in ONNX Runtime and its sessions.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use jetmoe_artifact::{CacheUpdate, OutputName, Profile, Signature};
use jetmoe_backend::allocator;
use jetmoe_backend::contract::check_names;
use jetmoe_backend::kv_cache::{InPlaceSession, InPlaceSlots};
use jetmoe_backend::{
    BoxError, CancellationGuard, CancellationToken, CudaOptions, Device, Error, GraphSession, GraphSource,
    LoadOptions, LoadedGraph, Prefetch, Result, SlotSession,
};
use ndarray::ArrayD;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session};
use ort::value::{Shape, TensorElementType, TensorValueTypeMarker, Value};

use crate::append_session::AppendSession;
use crate::bound_cache::BoundGraph;
use crate::cache_memory::{CacheElement, CacheMemory};
use crate::library::{OnnxRuntimeLibrary, library_error};
use crate::turns::Turns;
use crate::{NAME, custom_ops, pages, providers};

/// A graph in ONNX Runtime.
#[derive(Debug)]
pub(crate) struct OrtGraph {
    shared: Arc<Shared>,
    /// Least capacity of a cache that is updated in place.
    max_sequence_length: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// ONNX Runtime's own `Run` is not safe to call from two threads, so sessions take turns.
    pub(crate) session: Turns<Session>,
    pub(crate) signature: Signature,
    /// Names of the outputs in the graph's order.
    pub(crate) outputs: Vec<OutputName>,
    version: String,
    /// File of the requested trace, if any.
    trace: Option<PathBuf>,
    /// Whether a run can be terminated and the session used afterwards. In ONNX Runtime 1.24.1 the subgraphs of OpenVINO fail
    /// in all later runs.
    can_terminate: bool,
    pub(crate) cache_memory: CacheMemory,
}

impl OrtGraph {
    /// Loads a graph with the process's ONNX Runtime.
    pub(crate) fn load(source: &GraphSource<'_>, options: &LoadOptions) -> Result<Self> {
        let GraphSource { record, signature, data, .. } = source;
        let named = options.onnxruntime_library.as_deref();
        let library = match options.device.provider() {
            Some(provider) => OnnxRuntimeLibrary::find_with(named, provider)?,
            None => OnnxRuntimeLibrary::find(named)?,
        };
        let environment = environment(&library)?;
        let load_error =
            |error: BoxError| Error::Load { backend: NAME, graph: source.path.clone(), source: error };
        let refused = |error: ort::Error| load_error(error.into());
        let mut builder = configure(&environment, options).map_err(refused)?;
        if record.profile == Profile::Native {
            let prefetch = Prefetch::for_weights(record.data.size);
            let domain = custom_ops::domain(options, prefetch).map_err(refused)?;
            builder = builder.with_operators(domain).map_err(|error| refused(error.into()))?;
        }
        let mut builder = providers::register(builder, &library, record.profile, signature, options)?;
        // after the device itself, which an error names
        let on_device = || {
            let mut options = options.clone();
            options.trace = None;
            if let Device::TensorRt(tensorrt) = &options.device {
                // engines pay for products, not for copies
                options.device = Device::Cuda(CudaOptions::default().with_device_id(tensorrt.device_id));
            }
            let builder = configure(&environment, &options).map_err(refused)?;
            providers::register(builder, &library, record.profile, signature, &options)
        };
        let cache_memory = CacheMemory::new(
            &options.device,
            match record.kv_cache {
                Some(format) => CacheElement::Rows(format),
                None => CacheElement::of_floats(record.precision.activations()),
            },
            options.cache_by_graphs,
            on_device,
        )?;
        let (graph, weights) = resolve_links(source).map_err(load_error)?;
        builder =
            builder.with_config_entry(WEIGHTS_FOLDER, weights).map_err(|error| refused(error.into()))?;
        let session =
            allocator::with_freed_memory_returned(|| builder.commit_from_memory(&graph)).map_err(refused)?;
        // the custom operators read the mapped weights
        if !options.low_memory && record.profile != Profile::Native {
            pages::advise_cold(data);
        }
        let names = |outlets: &[ort::value::Outlet]| -> Vec<String> {
            outlets.iter().map(|outlet| outlet.name().to_owned()).collect()
        };
        let (mut inputs, outputs) = (names(session.inputs()), names(session.outputs()));
        inputs.extend(session.overridable_initializers().iter().map(|input| input.name().to_owned()));
        let outputs = check_names(signature, &inputs, &outputs).map_err(|error| load_error(error.into()))?;
        let shared = Shared {
            session: Turns::new(session),
            signature: signature.clone(),
            outputs,
            version: options.device.describe(library.version()),
            trace: options.trace.clone(),
            can_terminate: !matches!(options.device, Device::OpenVino(_)),
            cache_memory,
        };
        Ok(OrtGraph { shared: Arc::new(shared), max_sequence_length: options.max_sequence_length })
    }
}

impl LoadedGraph for OrtGraph {
    fn backend(&self) -> String {
        format!("{NAME} {}", self.shared.version)
    }

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn start(&self) -> Result<Box<dyn GraphSession>> {
        let shared = self.shared.clone();
        match shared.signature.cache_update {
            CacheUpdate::Append => Ok(Box::new(AppendSession::new(shared))),
            CacheUpdate::InPlace | CacheUpdate::InPlaceByMask => {
                let graph = BoundGraph::new(shared);
                Ok(Box::new(InPlaceSession::new(graph, self.max_sequence_length)))
            }
        }
    }

    fn start_slots(&self, count: usize, capacity: usize) -> Result<Option<Box<dyn SlotSession>>> {
        let slots = InPlaceSlots::new(BoundGraph::new(self.shared.clone()), count, capacity)?;
        Ok(slots.map(|slots| Box::new(slots) as Box<dyn SlotSession>))
    }

    fn cache_bytes_on_host(&self) -> Option<u64> {
        Some(self.shared.cache_memory.bytes_on_host())
    }

    fn finish_trace(&self) -> Result<()> {
        let Some(path) = &self.shared.trace else { return Ok(()) };
        let mut session = self.shared.session.wait_for_ever();
        // ONNX Runtime appends date and time to the name
        let written = session.end_profiling().map_err(run_error)?;
        std::fs::rename(written, path).map_err(|source| Error::Trace { path: path.clone(), source })
    }
}

/// Key of the setting of a session for the folder that locations of weights are relative to, for a graph in memory.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// The graph, and the folder that its locations are relative to. ONNX Runtime refuses a data file that is a link out of its
/// folder, as in the hub's cache, so the graph is made to name the file behind the link.
fn resolve_links<'a>(source: &'a GraphSource<'_>) -> Result<(Cow<'a, [u8]>, String), BoxError> {
    let unreadable = |error| format!("cannot open {}: {error}", source.data.display());
    let is_link = std::fs::symlink_metadata(&source.data).map_err(unreadable)?.is_symlink();
    let data = match is_link {
        true => Cow::Owned(source.data.canonicalize().map_err(unreadable)?),
        false => Cow::Borrowed(&source.data),
    };
    let utf8 = |name: Option<&str>| {
        let problem = || format!("the path {} is not UTF-8\n  rename its folders", data.display());
        name.map(str::to_owned).ok_or_else(problem)
    };
    let graph = if is_link {
        let name = utf8(data.file_name().and_then(OsStr::to_str))?;
        Cow::Owned(jetmoe_onnx::with_data_file(&source.path, &source.graph, &name)?)
    } else {
        Cow::Borrowed(source.graph.as_slice())
    };
    let folder = data.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((graph, utf8(folder.to_str())?))
}

/// The environment of this process; ONNX Runtime allows one.
pub(crate) fn environment(library: &OnnxRuntimeLibrary) -> Result<Environment> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

    let mut current = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*current {
        return Ok(environment.clone());
    }
    let environment = ort::init_from(library.path())
        .map_err(|error| library_error(library.path(), error))?
        .with_name("jetmoe")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| library_error(library.path(), error))?;
    environment.set_log_level(LogLevel::Warning);
    *current = Some(environment.clone());
    Ok(environment)
}

/// ONNX Runtime logs errors that it also returns, and warnings users cannot act on, so its log goes to `debug`.
fn log(_level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    tracing::debug!(location, "{message}");
}

pub(crate) fn configure(environment: &Environment, options: &LoadOptions) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(environment)?;
    if let Some(threads) = options.thread_limit() {
        builder = builder.with_intra_threads(threads)?;
    }
    // between two steps the processor belongs to whoever uses the results
    builder = builder.with_config_entry("session.force_spinning_stop", "1")?;
    // the numbers of MatMulNBits' attribute accuracy_level
    let accuracy = if options.int8_activations { "4" } else { "1" };
    builder = builder.with_config_entry("session.qdq_matmulnbits_accuracy_level", accuracy)?;
    if let Some(trace) = &options.trace {
        builder = builder.with_profiling(trace)?;
    }
    if options.low_memory {
        // both would convert the weights to float32 once, when the graph is loaded
        let folding = "ConstantFolding;FuseFp16InitializerToFp32NodeTransformer";
        builder = builder.with_config_entry("optimization.disable_specified_optimizers", folding)?;
    }
    Ok(builder)
}

pub(crate) fn to_array<Type: TensorValueTypeMarker + ?Sized>(
    value: &Value<Type>,
) -> ort::Result<ArrayD<f32>> {
    let is_float16 = value.dtype().tensor_type() == Some(TensorElementType::Float16);
    let (shape, elements) = if is_float16 {
        let (shape, elements) = value.try_extract_tensor::<f16>()?;
        (shape, elements.iter().map(|element| element.to_f32()).collect())
    } else {
        let (shape, elements) = value.try_extract_tensor::<f32>()?;
        (shape, elements.to_vec())
    };
    ArrayD::from_shape_vec(sizes(shape), elements).map_err(ort::Error::wrap)
}

/// The sizes of an existing tensor, none of which is negative.
pub(crate) fn sizes(shape: &Shape) -> Vec<usize> {
    shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect()
}

impl Shared {
    /// Options of a run that ends when the token is cancelled, as long as the guard lives.
    pub(crate) fn run_options(
        &self,
        cancellation: &CancellationToken,
    ) -> ort::Result<(Arc<RunOptions>, Option<CancellationGuard>)> {
        let options = Arc::new(RunOptions::new()?);
        let terminated = options.clone();
        let guard = self.can_terminate.then(|| {
            cancellation.on_cancel(move || {
                if let Err(error) = terminated.terminate() {
                    tracing::warn!("ONNX Runtime does not stop a run: {error}");
                }
            })
        });
        Ok((options, guard))
    }

    /// Drops the results of a run that was cancelled but could not be terminated.
    pub(crate) fn check_cancelled(&self, cancellation: &CancellationToken) -> ort::Result<()> {
        if !self.can_terminate && cancellation.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

/// The error of a step that is cancelled while it waits for its turn, or that could not be terminated; [`step_error`]
/// recognises it by the token.
pub(crate) fn cancelled() -> ort::Error {
    ort::Error::new("cancelled")
}

/// The error of a step. ONNX Runtime has no error code for a terminated run, and its message may change.
pub(crate) fn step_error(error: ort::Error, cancellation: &CancellationToken) -> Error {
    if cancellation.is_cancelled() {
        tracing::debug!("cancelled: {error}");
        return Error::Cancelled { backend: NAME };
    }
    run_error(error)
}

pub(crate) fn run_error(error: ort::Error) -> Error {
    Error::Run { backend: NAME, source: error.into() }
}
