//! A graph in tract and its sessions.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_artifact::{
    Axis, CacheFormat, CacheUpdate, ElementType, InputName, InputSpec, OutputName, Signature, names,
};
use jetmoe_backend::allocator;
use jetmoe_backend::contract::{check_names, check_shapes, past_shape};
use jetmoe_backend::kv_cache::{InPlaceSession, InPlaceSlots};
use jetmoe_backend::trace::{StepTracer, Trace};
use jetmoe_backend::{
    CancellationToken, Error, GraphSession, GraphSource, LoadOptions, LoadedGraph, Result, SlotSession,
    StepInputs, TensorMap,
};
use ndarray::ArrayD;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval;
use tract_onnx::tract_hir::infer::InferenceFact;
use tract_onnx::tract_hir::internal::{TDim, ToDim};

use crate::data_file::DataFile;
use crate::operator::datum_type;
use crate::shared_cache::{self, SharedCacheGraph, StepCache};
use crate::{NAME, VERSION, attention, cached_attention, custom_ops, logits_to_keep, product, quantized};

/// A graph in tract.
#[derive(Debug)]
pub(crate) struct TractGraph {
    shared: Arc<Shared>,
    trace: Option<Arc<Trace>>,
    /// Least capacity of a cache that is updated in place.
    max_sequence_length: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    plan: Arc<TypedRunnableModel>,
    pub(crate) signature: Signature,
    /// How a cache of rows of bytes stores its numbers.
    pub(crate) kv_cache: Option<CacheFormat>,
    /// The inputs in the order of tract's graph, which has no cache that is updated in place.
    pub(crate) inputs: Vec<InputSpec>,
    /// Names of the outputs in the order of tract's graph.
    pub(crate) outputs: Vec<OutputName>,
    /// The threads that share the products.
    pool: Arc<ThreadPool>,
}

impl TractGraph {
    /// Loads and optimises a graph. One plan serves every batch size and length.
    pub(crate) fn load(source: &GraphSource<'_>, options: &LoadOptions) -> Result<Self> {
        allocator::keep_freed_memory();
        let shared = catch_panics(|| load(source, options)).map_err(|error| Error::Load {
            backend: NAME,
            graph: source.path.clone(),
            source: error.into(),
        })?;
        Ok(TractGraph {
            shared: Arc::new(shared),
            trace: options.trace.as_deref().map(Trace::new).map(Arc::new),
            max_sequence_length: options.max_sequence_length,
        })
    }
}

impl LoadedGraph for TractGraph {
    fn backend(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn start(&self) -> Result<Box<dyn GraphSession>> {
        let tracer = self.trace.clone().map(StepTracer::new);
        let shared = self.shared.clone();
        match shared.signature.cache_update {
            CacheUpdate::Append => {
                let (cache, backend_time) = (Vec::new(), Cell::default());
                Ok(Box::new(TractSession { shared, cache, backend_time, tracer }))
            }
            CacheUpdate::InPlace | CacheUpdate::InPlaceByMask => {
                let graph = SharedCacheGraph { shared, tracer };
                Ok(Box::new(InPlaceSession::new(graph, self.max_sequence_length)))
            }
        }
    }

    fn start_slots(&self, count: usize, capacity: usize) -> Result<Option<Box<dyn SlotSession>>> {
        let tracer = self.trace.clone().map(StepTracer::new);
        let graph = SharedCacheGraph { shared: self.shared.clone(), tracer };
        let slots = InPlaceSlots::new(graph, count, capacity)?;
        Ok(slots.map(|slots| Box::new(slots) as Box<dyn SlotSession>))
    }

    fn finish_trace(&self) -> Result<()> {
        self.trace.as_ref().map_or(Ok(()), |trace| trace.write())
    }
}

/// Calls tract and turns panics into errors: tract asserts on some graphs it does not expect.
pub(crate) fn catch_panics<T>(work: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    jetmoe_backend::catch_panics(work, TractError::msg)
}

fn load(source: &GraphSource<'_>, options: &LoadOptions) -> TractResult<Shared> {
    let signature = source.signature.clone();
    let data = &DataFile::new(source.data.clone());
    // Register what tract lacks. The shapes in value_info are ignored, as tract would take the names of their dimensions
    // for its own symbols.
    let mut tract = tract_onnx::onnx().with_ignore_value_info(true);
    tract.op_register.insert(product::OPERATOR, product::parse);
    attention::register(&mut tract.op_register);
    custom_ops::register(&mut tract.op_register);
    cached_attention::register(&mut tract.op_register);
    logits_to_keep::register(&mut tract.op_register);
    // Edit the ONNX message, before tract turns weights into tensors.
    let mut proto = tract.proto_model_for_read(&mut source.graph.as_slice())?;
    let graph = proto.graph.as_mut().ok_or_else(|| TractError::msg("the file holds no graph"))?;
    data.check_locations(graph)?;
    let weights = quantized::rewrite(graph, data)?;
    custom_ops::remove_weights(graph)?;
    logits_to_keep::rewrite(graph);
    // Compare with the signature.
    let inputs: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut outputs = check_names(&signature, &inputs, &outputs)?;
    if signature.cache_update.is_in_place() {
        shared_cache::detach(graph, &signature)?;
        outputs.retain(|name| !name.is_cache());
    }
    // tract treats the default of an optional input as a constant
    graph.initializer.retain(|tensor| !inputs.contains(&tensor.name));
    let known = || signature.inputs.iter().chain(&signature.optional_inputs);
    let inputs =
        graph.input.iter().filter_map(|input| known().find(|spec| spec.name.to_string() == input.name));
    let inputs: Vec<InputSpec> = inputs.cloned().collect();
    // Parse, give the inputs symbolic shapes, and type the model.
    let folder = match &mut proto.graph {
        Some(graph) => data.resolve_links(&mut graph.initializer)?,
        None => PathBuf::new(),
    };
    let mut model = tract.parse(&proto, folder.to_str())?.model;
    for (index, input) in inputs.iter().enumerate() {
        let fact = fact(&model, input, signature.cache_update);
        model.set_input_fact(index, fact)?;
    }
    let mut model = model.into_typed()?;
    // Give the operators their weights, then optimise.
    product::attach_weights(&mut model, &weights)?;
    custom_ops::map_weights(&mut model, data, options.batch_invariant)?;
    let plan = model.into_optimized()?.into_runnable()?;
    // rayon takes 0 for one thread per core
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.thread_limit().unwrap_or(0))
        .thread_name(|index| format!("jetmoe-tract-{index}"))
        .build()?;
    let kv_cache = source.record.kv_cache;
    Ok(Shared { plan, signature, kv_cache, inputs, outputs, pool: Arc::new(pool) })
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
        Axis::SequenceCount => symbol(names::SEQUENCE_COUNT),
        Axis::CacheBatchSize => symbol(names::CACHE_BATCH_SIZE),
        // the capacity of an in-place cache exceeds its tokens
        Axis::TotalSequenceLength if cache_update.is_in_place() => symbol("total_sequence_length"),
        Axis::TotalSequenceLength => symbol(names::PAST_SEQUENCE_LENGTH) + symbol(names::SEQUENCE_LENGTH),
    });
    InferenceFact::dt_shape(datum_type(input.element), shape.collect::<TVec<TDim>>())
}

/// The token axis of a cache tensor.
const TOKENS: usize = 2;

/// A batch of sequences in tract.
#[derive(Debug)]
struct TractSession {
    shared: Arc<Shared>,
    /// The cache as tract returned it, input of the next step; empty before the first step.
    cache: Vec<(OutputName, TValue)>,
    /// Duration of the last step.
    backend_time: Cell<Option<Duration>>,
    /// Set if a trace was requested.
    tracer: Option<StepTracer>,
}

impl GraphSession for TractSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let mut tracer = self.tracer.take();
        let result = traced(&mut tracer, || self.step(inputs));
        self.tracer = tracer;
        let (tensors, cache) = result?;
        let shapes = tensors.iter().map(|(name, tensor)| (*name, tensor.shape().to_vec()));
        let shapes = shapes.chain(cache.iter().map(|(name, value)| (*name, value.shape().to_vec())));
        check_shapes(&self.shared.signature, inputs.into(), shapes)?;
        self.cache = cache;
        Ok(tensors)
    }

    fn backend_time(&self) -> Option<Duration> {
        self.backend_time.get()
    }

    fn cache(&self) -> Result<TensorMap> {
        let copies =
            self.cache.iter().map(|(name, value)| Ok((*name, to_array(value.clone().into_tensor())?)));
        catch_panics(|| copies.collect()).map_err(run_error)
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        let cache = if tokens == 0 { &[] } else { self.cache.as_slice() };
        let kept = cache.iter().map(|(name, value)| {
            let cached = value.shape().get(TOKENS).copied().unwrap_or(0);
            Ok((*name, value.slice(TOKENS, 0, tokens.min(cached))?.into_tvalue()))
        });
        self.cache = catch_panics(|| kept.collect()).map_err(run_error)?;
        Ok(())
    }
}

impl Shared {
    /// Runs the graph and measures how long that took. Reads the token before every node. `cache` is for graphs that update
    /// it in place.
    pub(crate) fn run(
        &self,
        values: TVec<TValue>,
        cache: Option<StepCache>,
        cancellation: &CancellationToken,
    ) -> TractResult<(TVec<TValue>, Duration)> {
        let start = Instant::now();
        let executor = Executor::MultiThread(self.pool.clone());
        let outputs = multithread_tract_scope(executor, || {
            let mut state = self.plan.spawn()?;
            if let Some(cache) = cache {
                state.turn_state.shared.insert(cache);
            }
            state.run_plan_with_eval(values, |context, state, node, operands| {
                if cancellation.is_cancelled() {
                    return Err(TractError::new(Cancelled));
                }
                eval(context, state, node, operands)
            })
        })?;
        Ok((outputs, start.elapsed()))
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
            InputName::LogitsToKeep => Ok(tensor1(&[inputs.logits.as_input()]).into_tvalue()),
            InputName::Sequences => {
                Err(TractError::msg(format!("{} is of graphs that update the cache in place", input.name)))
            }
            InputName::PastKey(layer) => self.past(OutputName::PresentKey(layer), input, batch_size),
            InputName::PastValue(layer) => self.past(OutputName::PresentValue(layer), input, batch_size),
        });
        let values = values.collect::<TractResult<TVec<TValue>>>()?;
        let (outputs, time) = self.shared.run(values, None, &inputs.cancellation)?;
        self.backend_time.set(Some(time));
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

    /// The cache tensor of a name after the last step; a tensor without tokens before the first one.
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
pub(crate) fn to_array(tensor: Tensor) -> TractResult<ArrayD<f32>> {
    tensor.cast_to::<f32>()?.into_owned().into_plain_array()
}

/// Runs a step, and records it if a trace was requested.
pub(crate) fn traced<T>(tracer: &mut Option<StepTracer>, step: impl FnOnce() -> TractResult<T>) -> Result<T> {
    let start = Instant::now();
    let result = catch_panics(step);
    clear_upper_registers();
    if let Some(tracer) = tracer {
        tracer.step(start);
    }
    result.map_err(run_error)
}

/// Clears the upper halves of the vector registers. tract's AVX-512 kernels leave them dirty, which slows down SSE code that
/// runs afterwards: an `exp` took 340 ns or more instead of 30 to 40.
fn clear_upper_registers() {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX, which is all the instruction requires, and by the calling convention no live value
        // is in an upper half across a function call.
        unsafe { std::arch::x86_64::_mm256_zeroupper() }
    }
}

/// Marks the error of a cancelled run.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
struct Cancelled;

pub(crate) fn run_error(source: TractError) -> Error {
    match source.is::<Cancelled>() {
        true => Error::Cancelled { backend: NAME },
        false => Error::Run { backend: NAME, source: source.into() },
    }
}
