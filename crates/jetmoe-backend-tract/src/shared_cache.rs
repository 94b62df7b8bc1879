//! A cache that tract updates in place. The buffers belong to the session; for the time of a step the attention operators
//! reach them through the resources of tract's run, so an error or a panic inside of the graph cannot lose them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jetmoe_artifact::{ElementType, InputName, OutputName, Signature};
use jetmoe_backend::Result;
use jetmoe_backend::kv_cache::{CacheBuffer, CachePlace, InPlaceGraph, PackedInputs, RunOutput, copy_tokens};
use jetmoe_backend::operator::decode_cache;
use jetmoe_backend::trace::StepTracer;
use ndarray::ArrayD;
use tract_onnx::pb::GraphProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::attention::{self, CACHED_ATTENTION, LAYER};
use crate::cached_attention::{self, FUSED_ATTENTION};
use crate::graph::{Shared, catch_panics, run_error, to_array, traced};
use crate::operator::integer_attribute;

/// Keys or values of a layer: `[batch, kv_heads, capacity, kv_channels]` of float32, or rows of bytes.
#[derive(Debug, Clone)]
pub(crate) struct SharedBuffer(Arc<Mutex<Tensor>>);

impl SharedBuffer {
    /// The tensor. A step writes only behind the cached tokens, so one that a panic interrupted is as good as before.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cache of the running step, as its operators find it.
#[derive(Debug)]
pub(crate) struct StepCache(HashMap<InputName, SharedBuffer>);

impl StepCache {
    /// Keys and values of a layer.
    pub(crate) fn layer<'a>(
        context: &EvalContext<'a>,
        layer: usize,
    ) -> TractResult<(&'a SharedBuffer, &'a SharedBuffer)> {
        let cache = context.shared.and_then(|shared| shared.get::<StepCache>());
        let buffer = |name| cache.and_then(|StepCache(buffers)| buffers.get(&name));
        buffer(InputName::PastKey(layer))
            .zip(buffer(InputName::PastValue(layer)))
            .with_context(|| format!("the step has no cache of layer {layer}"))
    }
}

/// Takes the cache out of a graph: removes it from inputs and outputs, and turns the operators that read and write it into
/// [`CACHED_ATTENTION`] or [`FUSED_ATTENTION`] with the number of their layer.
pub(crate) fn detach(graph: &mut GraphProto, signature: &Signature) -> TractResult<()> {
    let mut cache = Vec::new();
    for input in &signature.inputs {
        if let InputName::PastKey(layer) = input.name {
            let (past_key, past_value) = (input.name.to_string(), InputName::PastValue(layer).to_string());
            let node = graph.node.iter_mut().find(|node| node.input.contains(&past_key));
            let node = node.with_context(|| format!("nothing reads {past_key}"))?;
            let present = [OutputName::PresentKey(layer), OutputName::PresentValue(layer)];
            let present = present.map(|name| name.to_string());
            let (name, operands) = match cached_attention::is_fused_attention(node) {
                true => (FUSED_ATTENTION, cached_attention::cache_operands()?),
                false => (CACHED_ATTENTION, 3..5),
            };
            ensure!(
                (name == FUSED_ATTENTION || node.op_type == "GroupQueryAttention")
                    && node.input.get(operands.clone()) == Some(&[past_key.clone(), past_value.clone()])
                    && node.output.get(1..3) == Some(&present),
                "{} does not update the cache of layer {layer} in place",
                node.op_type
            );
            node.op_type = name.to_owned();
            node.input.drain(operands);
            node.output.truncate(1);
            node.attribute.push(integer_attribute(LAYER, layer)?);
            cache.extend([past_key, past_value]);
            cache.extend(present);
        }
    }
    attention::replace_others(graph);
    cached_attention::replace_others(graph);
    graph.input.retain(|input| !cache.contains(&input.name));
    graph.output.retain(|output| !cache.contains(&output.name));
    let mut operands = graph.node.iter().flat_map(|node| &node.input);
    if let Some(operand) = operands.find(|operand| cache.contains(operand)) {
        bail!("{operand} is read by another operator than attention");
    }
    Ok(())
}

/// A graph with the trace of one session.
#[derive(Debug)]
pub(crate) struct SharedCacheGraph {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tracer: Option<StepTracer>,
}

/// Runs the graph over buffers that it updates.
fn call(
    shared: &Shared,
    inputs: &PackedInputs,
    buffers: &[CacheBuffer<SharedBuffer>],
) -> TractResult<RunOutput> {
    let values = shared.inputs.iter().map(|input| match input.name {
        InputName::InputIds => Ok(inputs.ids.clone().into_tvalue()),
        InputName::AttentionMask => Ok(inputs.mask.clone().into_tvalue()),
        InputName::PositionIds => Ok(inputs.positions.clone().into_tvalue()),
        InputName::LogitsToKeep => Ok(tensor1(&[inputs.logits_to_keep]).into_tvalue()),
        InputName::Sequences => Ok(inputs.sequences.clone().into_tvalue()),
        InputName::PastKey(_) | InputName::PastValue(_) => bail!("{} is still an input", input.name),
    });
    let values = values.collect::<TractResult<TVec<TValue>>>()?;
    let cache = buffers.iter().map(|cached| (cached.past, cached.buffer.clone())).collect();
    let (outputs, time) = shared.run(values, Some(StepCache(cache)), &inputs.cancellation)?;
    let outputs = shared.outputs.iter().zip(outputs);
    let outputs = outputs.map(|(name, value)| Ok((*name, to_array(value.into_tensor())?)));
    Ok((outputs.collect::<TractResult<_>>()?, time))
}

impl InPlaceGraph for SharedCacheGraph {
    type Buffer = SharedBuffer;

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn allocate(&self, element: ElementType, shape: &[usize]) -> Result<SharedBuffer> {
        let tensor = catch_panics(|| match element {
            ElementType::UInt8 => Tensor::zero::<u8>(shape),
            // graphs in float16 have no in-place cache in tract
            _ => Tensor::zero::<f32>(shape),
        });
        let tensor = tensor.map_err(run_error)?;
        Ok(SharedBuffer(Arc::new(Mutex::new(tensor))))
    }

    fn read(&self, buffer: &SharedBuffer) -> Result<ArrayD<f32>> {
        let array = catch_panics(|| {
            let tensor = buffer.lock();
            match self.shared.kv_cache {
                None => to_array(tensor.clone()),
                Some(format) => {
                    let bytes = tensor.try_as_plain_ram()?;
                    Ok(decode_cache(format, tensor.shape(), bytes.as_slice::<u8>()?)?)
                }
            }
        });
        array.map_err(run_error)
    }

    fn copy_tokens(
        &self,
        (to, to_place): (&mut SharedBuffer, CachePlace),
        (from, from_place): (&SharedBuffer, CachePlace),
        tokens: usize,
    ) -> Result<()> {
        let copied = catch_panics(|| {
            let (mut to, from) = (to.lock(), from.lock());
            let (to_shape, from_shape) = (to.shape().to_vec(), from.shape().to_vec());
            let mut target = to.try_as_plain_ram_mut()?;
            let source = from.try_as_plain_ram()?;
            let (to, from) = ((to_shape.as_slice(), to_place), (from_shape.as_slice(), from_place));
            match self.shared.kv_cache {
                None => {
                    let (target, source) = (target.as_slice_mut::<f32>()?, source.as_slice::<f32>()?);
                    copy_tokens((target, to.0, to.1), (source, from.0, from.1), tokens);
                }
                Some(_) => {
                    let (target, source) = (target.as_slice_mut::<u8>()?, source.as_slice::<u8>()?);
                    copy_tokens((target, to.0, to.1), (source, from.0, from.1), tokens);
                }
            }
            Ok(())
        });
        copied.map_err(run_error)
    }

    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<SharedBuffer>]) -> Result<RunOutput> {
        let SharedCacheGraph { shared, tracer } = self;
        traced(tracer, || call(shared, inputs, buffers))
    }
}
