//! A graph in rten and its sessions.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_artifact::{InputName, InputSpec, OutputName, Signature};
use jetmoe_backend::contract::{check_names, check_shapes, past_shape};
use jetmoe_backend::trace::{StepTracer, Trace};
use jetmoe_backend::{
    BoxError, Error as BackendError, GraphSession, GraphSource, LoadOptions, LoadedGraph, Result, StepInputs,
    TensorMap,
};
use jetmoe_checkpoint::MappedFile;
use ndarray::{ArrayD, ArrayView2};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

use crate::error::Error;
use crate::rewrite::{self, Rewritten};
use crate::{NAME, VERSION};

/// A graph in rten.
#[derive(Debug)]
pub(crate) struct RtenGraph {
    shared: Arc<Shared>,
    trace: Option<Arc<Trace>>,
}

struct Shared {
    loaded: LoadedModel,
    signature: Signature,
    /// The inputs in the graph's order.
    inputs: Vec<(NodeId, InputSpec)>,
    /// Names of the outputs, in the order of `output_ids`.
    outputs: Vec<OutputName>,
    output_ids: Vec<NodeId>,
    /// Its own threads; `None` for those that all graphs share, one per physical core.
    pool: Option<Arc<ThreadPool>>,
}

/// A model, and the file that it reads weights from; dropped in this order.
struct LoadedModel {
    model: Model,
    /// `None` if the weights are in memory.
    _data: Option<MappedFile>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("model", &self.loaded.model)
            .field("signature", &self.signature)
            .finish_non_exhaustive()
    }
}

impl RtenGraph {
    /// Loads and optimises a graph.
    pub(crate) fn load(source: &GraphSource<'_>, options: &LoadOptions) -> Result<Self> {
        let shared = catch_panics(|| load(source, options.thread_limit())).map_err(|error| {
            BackendError::Load { backend: NAME, graph: source.path.clone(), source: error }
        })?;
        let trace = options.trace.as_deref().map(Trace::new).map(Arc::new);
        Ok(RtenGraph { shared: Arc::new(shared), trace })
    }
}

impl LoadedGraph for RtenGraph {
    fn backend(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn start(&self) -> Result<Box<dyn GraphSession>> {
        let tracer = self.trace.clone().map(StepTracer::new);
        let shared = self.shared.clone();
        Ok(Box::new(RtenSession { shared, cache: Vec::new(), backend_time: None, tracer }))
    }

    fn finish_trace(&self) -> Result<()> {
        self.trace.as_ref().map_or(Ok(()), |trace| trace.write())
    }
}

/// Calls rten. It returns errors; whether it also panics on a graph it does not expect is not known.
fn catch_panics<T>(work: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    jetmoe_backend::catch_panics(work, |message| Error::Panic { message }.into())
}

fn load(source: &GraphSource<'_>, threads: Option<usize>) -> Result<Shared, BoxError> {
    let loaded = load_model(source)?;
    let (model, signature) = (&loaded.model, source.signature.clone());
    // Check the contract.
    let names = |ids: &[NodeId]| -> Vec<String> {
        let name = |id: &NodeId| model.node_info(*id)?.name().map(str::to_owned);
        ids.iter().map(|id| name(id).unwrap_or_default()).collect()
    };
    let outputs = check_names(&signature, &names(model.input_ids()), &names(model.output_ids()))?;
    let id = |name: String| model.find_node(&name).ok_or(Error::NoValue { name });
    let inputs = signature.inputs.iter().map(|input| Ok((id(input.name.to_string())?, input.clone())));
    let inputs = inputs.collect::<Result<Vec<_>, Error>>()?;
    let output_ids = model.output_ids().to_vec();
    let pool = threads.map(|threads| Arc::new(ThreadPool::with_num_threads(threads)));
    Ok(Shared { loaded, signature, inputs, outputs, output_ids, pool })
}

/// Loads a graph as it is, with its weights where the file is mapped, or rewritten, with weights in memory.
fn load_model(source: &GraphSource<'_>) -> Result<LoadedModel, BoxError> {
    let mut options = ModelOptions::with_all_ops();
    let model = jetmoe_onnx::decode(&source.path, &source.graph)?;
    let data_name = source.data.file_name().unwrap_or_default().to_string_lossy();
    let data = MappedFile::open(&source.data)?;
    if !model.graph.as_ref().is_some_and(rewrite::is_needed) {
        // SAFETY: the bytes stay mapped at their address until `data` is dropped, which `LoadedModel` does after the model.
        // Nothing that the model returns refers to them: its results are tensors that own their elements.
        let bytes: &'static [u8] = unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) };
        options.external_data_static(&data_name, bytes);
        return Ok(LoadedModel { model: options.load(source.graph.clone())?, _data: Some(data) });
    }
    let Rewritten { model, weights } = rewrite::rewrite(model, &data, &data_name)?;
    for (name, bytes) in weights {
        options.external_data(&name, bytes);
    }
    Ok(LoadedModel { model: options.load(model.to_bytes())?, _data: None })
}

/// Axis of a part of the cache that counts tokens.
const TOKENS: usize = 2;

/// A batch of sequences in rten.
#[derive(Debug)]
struct RtenSession {
    shared: Arc<Shared>,
    /// The cache as rten returned it, which the next step takes as it is; empty before the first step.
    cache: Vec<(OutputName, Tensor<f32>)>,
    /// Of the last step.
    backend_time: Option<Duration>,
    /// Where a trace was asked for.
    tracer: Option<StepTracer>,
}

impl GraphSession for RtenSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let cancelled = || match inputs.cancellation.is_cancelled() {
            true => Err(BackendError::Cancelled { backend: NAME }),
            false => Ok(()),
        };
        cancelled()?;
        let start = Instant::now();
        let result = catch_panics(|| self.step(inputs));
        if let Some(tracer) = &mut self.tracer {
            tracer.step(start);
        }
        let Outputs { tensors, cache, time } = result.map_err(run_error)?;
        // rten has no way to stop a run
        cancelled()?;
        let shapes = tensors.iter().map(|(name, tensor)| (*name, tensor.shape().to_vec()));
        let shapes = shapes.chain(cache.iter().map(|(name, tensor)| (*name, tensor.shape().to_vec())));
        check_shapes(&self.shared.signature, inputs.into(), shapes)?;
        self.cache = cache;
        self.backend_time = Some(time);
        Ok(tensors)
    }

    fn backend_time(&self) -> Option<Duration> {
        self.backend_time
    }

    fn cache(&self) -> Result<TensorMap> {
        let copies = self.cache.iter().map(|(name, tensor)| Ok((*name, to_array(tensor.clone())?)));
        copies.collect::<Result<_, BoxError>>().map_err(run_error)
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens == 0 {
            self.cache.clear();
        }
        for (_, tensor) in &mut self.cache {
            if tokens < tensor.size(TOKENS) {
                *tensor = tensor.slice_axis(TOKENS, 0..tokens).to_tensor();
            }
        }
        Ok(())
    }
}

/// What a step returned.
struct Outputs {
    tensors: TensorMap,
    /// The cache after it.
    cache: Vec<(OutputName, Tensor<f32>)>,
    /// How long rten took.
    time: Duration,
}

impl RtenSession {
    fn step(&self, inputs: &StepInputs) -> Result<Outputs, BoxError> {
        let Shared { loaded: LoadedModel { model, .. }, pool, .. } = &*self.shared;
        let batch_size = inputs.input_ids.nrows();
        let mut values = Vec::new();
        for (id, input) in &self.shared.inputs {
            let value: ValueOrView<'_> = match input.name {
                InputName::InputIds => integers(inputs.input_ids.view())?.into(),
                InputName::AttentionMask => integers(inputs.attention_mask.view())?.into(),
                InputName::PositionIds => integers(inputs.position_ids.view())?.into(),
                // only graphs of other profiles have it
                InputName::LogitsToKeep | InputName::Sequences => continue,
                InputName::PastKey(layer) => self.past(OutputName::PresentKey(layer), input, batch_size),
                InputName::PastValue(layer) => self.past(OutputName::PresentValue(layer), input, batch_size),
            };
            values.push((*id, value));
        }
        let options = RunOptions::default().with_thread_pool(pool.clone());
        let start = Instant::now();
        let outputs = model.run(values, &self.shared.output_ids, Some(options))?;
        let time = start.elapsed();
        let (mut tensors, mut cache) = (TensorMap::new(), Vec::new());
        for (name, value) in self.shared.outputs.iter().zip(outputs) {
            let tensor: Tensor<f32> = value.try_into()?;
            if name.is_cache() {
                cache.push((*name, tensor));
            } else {
                tensors.insert(*name, to_array(tensor)?);
            }
        }
        Ok(Outputs { tensors, cache, time })
    }

    /// What the last step left under a name; a tensor without tokens before the first.
    fn past(&self, name: OutputName, input: &InputSpec, batch_size: usize) -> ValueOrView<'_> {
        match self.cache.iter().find(|(cached, _)| *cached == name) {
            Some((_, tensor)) => tensor.view().into(),
            None => Value::from(Tensor::<f32>::zeros(&past_shape(input, batch_size, 0))).into(),
        }
    }
}

/// Integers as rten has them, of 32 bits.
fn integers(values: ArrayView2<'_, i64>) -> Result<Value, BoxError> {
    let elements = values.iter().map(|value| i32::try_from(*value)).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::from_shape([values.nrows(), values.ncols()], elements)?)
}

fn to_array(tensor: Tensor<f32>) -> Result<ArrayD<f32>, BoxError> {
    let shape = tensor.shape().to_vec();
    Ok(ArrayD::from_shape_vec(shape, tensor.into_data())?)
}

fn run_error(source: BoxError) -> BackendError {
    BackendError::Run { backend: NAME, source }
}
