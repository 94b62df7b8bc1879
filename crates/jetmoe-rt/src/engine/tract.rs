//! tract.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_artifact::{
    Artifact, Axis, CacheUpdate, ElementType, GraphRecord, InputName, InputSpec, OutputName, Signature, names,
};
use ndarray::ArrayD;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tract_linalg::multithread::{Executor, current_tract_executor, multithread_tract_scope};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceFact;
use tract_onnx::tract_hir::internal::{TDim, ToDim};

use self::in_place::TractInPlace;
use super::contract::{check_names, past_shape};
use super::in_place::InPlaceSession;
use super::trace::Trace;
use super::{GraphSession, LoadedGraph, StepInputs, TensorMap};
use crate::{Error, LoadOptions, Result, Runtime};

mod attention;
mod in_place;
mod kernel;
mod last;
mod own;
mod product;
mod quantized;

/// Version of the crate, which has no constant for it; a test compares it with `Cargo.lock`.
pub(crate) const VERSION: &str = "0.23.9";

/// A graph in tract.
#[derive(Debug)]
pub(crate) struct TractGraph {
    shared: Arc<Shared>,
    trace: Option<Arc<Trace>>,
    /// Tokens that a cache in place has room for from its beginning.
    max_sequence_length: Option<usize>,
}

#[derive(Debug)]
struct Shared {
    plan: Arc<TypedRunnableModel>,
    signature: Signature,
    /// The inputs in the graph's order.
    inputs: Vec<InputSpec>,
    /// Names of the outputs in the graph's order.
    outputs: Vec<OutputName>,
    /// The threads that share the products.
    pool: Arc<ThreadPool>,
}

impl TractGraph {
    /// Loads and optimises a graph. One plan serves every batch size and length.
    pub(crate) fn load(artifact: &Artifact, record: &GraphRecord, options: &LoadOptions) -> Result<Self> {
        let path = artifact.path(&record.graph);
        let signature = artifact.signature(record);
        let data = artifact.path(&record.data);
        let shared = guarded(|| load(&path, &data, signature, options.threads))
            .map_err(|message| Error::Load { runtime: Runtime::Tract, graph: path.clone(), message })?;
        Ok(TractGraph {
            shared: Arc::new(shared),
            trace: options.trace.as_deref().map(Trace::new).map(Arc::new),
            max_sequence_length: options.max_sequence_length,
        })
    }
}

impl LoadedGraph for TractGraph {
    fn runtime(&self) -> String {
        format!("{} {VERSION}", Runtime::Tract)
    }

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn start(&self) -> Result<Box<dyn GraphSession>> {
        let recorder = self.trace.clone().map(Recorder::new);
        let shared = self.shared.clone();
        match shared.signature.cache_update {
            CacheUpdate::Append => {
                let (cache, engine_time) = (Vec::new(), Cell::default());
                Ok(Box::new(TractSession { shared, cache, engine_time, recorder }))
            }
            CacheUpdate::InPlace => {
                let graph = TractInPlace { shared, recorder };
                Ok(Box::new(InPlaceSession::new(graph, self.max_sequence_length)))
            }
        }
    }

    fn finish_trace(&self) -> Result<()> {
        self.trace.as_ref().map_or(Ok(()), |trace| trace.write())
    }
}

/// Runs a piece of tract. tract answers with errors, but asserts here and there on graphs it does not expect.
fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned())
        }
    }
}

fn load(path: &Path, data: &Path, signature: Signature, threads: Option<usize>) -> TractResult<Shared> {
    // the shapes in value_info name dimensions that tract would take for its own
    let mut tract = tract_onnx::onnx().with_ignore_value_info(true);
    tract.op_register.insert(product::OPERATOR, product::parse);
    attention::register(&mut tract.op_register);
    own::register(&mut tract.op_register);
    last::register(&mut tract.op_register);
    let mut proto = tract.proto_model_for_path(path)?;
    let graph = proto.graph.as_mut().ok_or_else(|| TractError::msg("the file holds no graph"))?;
    quantized::rewrite(graph)?;
    own::take_weights(graph)?;
    last::rewrite(graph);
    let inputs: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let outputs = check_names(&signature, &inputs, &outputs).map_err(TractError::msg)?;
    // tract takes the default of an optional input for a constant
    graph.initializer.retain(|tensor| !inputs.contains(&tensor.name));
    let known = || signature.inputs.iter().chain(&signature.optional_inputs);
    let inputs = inputs.iter().filter_map(|name| known().find(|spec| spec.name.to_string() == *name));
    let inputs: Vec<InputSpec> = inputs.cloned().collect();
    let folder = path.parent().and_then(Path::to_str);
    let mut model = tract.parse(&proto, folder)?.model;
    for (index, input) in inputs.iter().enumerate() {
        let fact = fact(&model, input, signature.cache_update);
        model.set_input_fact(index, fact)?;
    }
    let mut model = model.into_typed()?;
    own::bring_weights(&mut model, data)?;
    let plan = model.into_optimized()?.into_runnable()?;
    // rayon takes 0 for one thread per core
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .thread_name(|index| format!("jetmoe-tract-{index}"))
        .build()?;
    Ok(Shared { plan, signature, inputs, outputs, pool: Arc::new(pool) })
}

/// Element type and symbolic shape of an input.
fn fact(model: &InferenceModel, input: &InputSpec, cache_update: CacheUpdate) -> InferenceFact {
    let symbol = |name| model.symbols.sym(name).to_dim();
    let shape = input.shape.iter().map(|axis| match axis {
        Axis::Fixed(size) => size.to_dim(),
        Axis::BatchSize => symbol(names::BATCH_SIZE),
        Axis::SequenceLength => symbol(names::SEQUENCE_LENGTH),
        Axis::PastSequenceLength => symbol(names::PAST_SEQUENCE_LENGTH),
        Axis::LogitsLength => symbol(names::LOGITS_LENGTH),
        // a cache in place has more room than tokens
        Axis::TotalSequenceLength if cache_update == CacheUpdate::InPlace => symbol("total_sequence_length"),
        Axis::TotalSequenceLength => symbol(names::PAST_SEQUENCE_LENGTH) + symbol(names::SEQUENCE_LENGTH),
    });
    let element = match input.element {
        ElementType::Int64 => i64::datum_type(),
        ElementType::Float16 => f16::datum_type(),
        _ => f32::datum_type(),
    };
    InferenceFact::dt_shape(element, shape.collect::<TVec<TDim>>())
}

/// Axis of a part of the cache that counts tokens.
const TOKENS: usize = 2;

/// A batch of sequences in tract.
#[derive(Debug)]
struct TractSession {
    shared: Arc<Shared>,
    /// The cache as tract returned it, to be handed back as it is; empty before the first step.
    cache: Vec<(OutputName, TValue)>,
    /// Of the last step.
    engine_time: Cell<Option<Duration>>,
    /// Where a trace was asked for.
    recorder: Option<Recorder>,
}

/// What a session knows of its trace.
#[derive(Debug)]
struct Recorder {
    trace: Arc<Trace>,
    session: u64,
    steps: usize,
    last: Option<Instant>,
}

impl Recorder {
    fn new(trace: Arc<Trace>) -> Self {
        Recorder { session: trace.session(), trace, steps: 0, last: None }
    }

    /// Keeps a step that began then and has just ended, and the time since the one before it.
    fn step(&mut self, begun: Instant) {
        let ended = Instant::now();
        if let Some(last) = self.last.replace(ended) {
            self.trace.keep(self.session, "between steps: sampling, text", last, begun);
        }
        let name = match self.steps {
            0 => "prefill".to_owned(),
            step => format!("decode {step}"),
        };
        self.trace.keep(self.session, &name, begun, ended);
        self.steps += 1;
    }
}

impl GraphSession for TractSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let mut recorder = self.recorder.take();
        let result = recorded(&mut recorder, || self.step(inputs));
        self.recorder = recorder;
        let (tensors, cache) = result?;
        self.cache = cache;
        Ok(tensors)
    }

    fn engine_time(&self) -> Option<Duration> {
        self.engine_time.get()
    }

    fn cache(&self) -> Result<TensorMap> {
        let copies =
            self.cache.iter().map(|(name, value)| Ok((*name, to_array(value.clone().into_tensor())?)));
        guarded(|| copies.collect()).map_err(run_error)
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        let cache = if tokens == 0 { &[] } else { self.cache.as_slice() };
        let kept = cache.iter().map(|(name, value)| {
            let cached = value.shape().get(TOKENS).copied().unwrap_or(0);
            Ok((*name, value.slice(TOKENS, 0, tokens.min(cached))?.into_tvalue()))
        });
        self.cache = guarded(|| kept.collect()).map_err(run_error)?;
        Ok(())
    }
}

impl Shared {
    /// Runs the graph, and says how long that took.
    fn run(&self, values: TVec<TValue>) -> TractResult<(TVec<TValue>, Duration)> {
        let begun = Instant::now();
        let executor = Executor::MultiThread(self.pool.clone());
        let outputs = multithread_tract_scope(executor, || self.plan.run(values))?;
        Ok((outputs, begun.elapsed()))
    }
}

impl TractSession {
    /// Outputs of a step: those to return, and the cache after it.
    fn step(&self, inputs: &StepInputs) -> TractResult<(TensorMap, Vec<(OutputName, TValue)>)> {
        let batch_size = inputs.input_ids.nrows();
        let values = self.shared.inputs.iter().map(|input| match input.name {
            InputName::InputIds => Ok(inputs.input_ids.clone().into_tvalue()),
            InputName::AttentionMask => Ok(inputs.attention_mask.clone().into_tvalue()),
            InputName::PositionIds => Ok(inputs.position_ids.clone().into_tvalue()),
            InputName::LogitsToKeep => Ok(tensor1(&[inputs.logits.to_keep()]).into_tvalue()),
            InputName::PastKey(layer) => self.past(OutputName::PresentKey(layer), input, batch_size),
            InputName::PastValue(layer) => self.past(OutputName::PresentValue(layer), input, batch_size),
        });
        let values = values.collect::<TractResult<TVec<TValue>>>()?;
        let (outputs, took) = self.shared.run(values)?;
        self.engine_time.set(Some(took));
        let mut tensors = TensorMap::new();
        let mut cache = Vec::new();
        for (name, value) in self.shared.outputs.iter().zip(outputs) {
            if name.is_cache() {
                cache.push((*name, value));
            } else {
                tensors.insert(*name, to_array(value.into_tensor())?);
            }
        }
        Ok((tensors, cache))
    }

    /// What the last step left under a name; a tensor without tokens before the first.
    fn past(&self, name: OutputName, input: &InputSpec, batch_size: usize) -> TractResult<TValue> {
        match self.cache.iter().find(|(cached, _)| *cached == name) {
            Some((_, value)) => Ok(value.clone()),
            None => {
                let shape = past_shape(input, batch_size, 0);
                Ok(match input.element {
                    ElementType::Float16 => Tensor::zero::<f16>(&shape)?,
                    _ => Tensor::zero::<f32>(&shape)?,
                }
                .into_tvalue())
            }
        }
    }
}

/// A tensor as float32.
fn to_array(tensor: Tensor) -> TractResult<ArrayD<f32>> {
    tensor.cast_to::<f32>()?.into_owned().into_plain_array()
}

/// Runs a step, and keeps it where a trace was asked for.
fn recorded<T>(recorder: &mut Option<Recorder>, step: impl FnOnce() -> TractResult<T>) -> Result<T> {
    let begun = Instant::now();
    let result = guarded(step);
    clear_upper_registers();
    if let Some(recorder) = recorder {
        recorder.step(begun);
    }
    result.map_err(run_error)
}

/// The threads that share the work of the step that runs; `None` where the calling one does it alone.
fn current_pool() -> Option<Arc<ThreadPool>> {
    match current_tract_executor() {
        Executor::MultiThread(pool) => Some(pool),
        Executor::SingleThread | Executor::RayonGlobal => None,
    }
}

/// Does work that rayon shares on the threads of the step that runs.
fn on_its_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match current_pool() {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// Empties the upper halves of the vector registers. tract's AVX-512 kernels leave them dirty, and everything compiled
/// for plain SSE that runs afterwards then waits for them: an `exp` took 340 ns or more instead of 30 to 40.
fn clear_upper_registers() {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX, which is all the instruction needs, and by the calling convention no value
        // of ours lives in an upper half across the call of a function.
        unsafe { std::arch::x86_64::_mm256_zeroupper() }
    }
}

fn run_error(message: String) -> Error {
    Error::Run { runtime: Runtime::Tract.to_string(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_crate() {
        let lock = include_str!("../../../../Cargo.lock");
        let version = lock.split("[[package]]").find_map(|package| {
            package
                .contains("name = \"tract-onnx\"")
                .then(|| package.lines().find_map(|l| l.strip_prefix("version = ")))?
        });
        assert_eq!(version, Some(format!("\"{VERSION}\"").as_str()));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded::<()>(|| panic!("in {}", "tract")), Err("in tract".to_owned()));
        assert_eq!(guarded::<()>(|| panic!("in tract")), Err("in tract".to_owned()));
    }

    #[test]
    fn an_error_keeps_its_causes() {
        let result = guarded::<()>(|| Err(TractError::msg("cause").context("what failed")));
        assert_eq!(result, Err("what failed: cause".to_owned()));
    }
}
