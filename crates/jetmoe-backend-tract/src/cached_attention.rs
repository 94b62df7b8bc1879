//! The custom operator `Attention` in tract. The cache of a layer is no operand here: [`detach`](crate::shared_cache::detach)
//! removes it, and the operator finds it by the number of the layer. In copies of graphs in which attention is observed, one such
//! operator has a cache of its own among its operands, and returns no longer one.

use jetmoe_backend::operator::{self, CacheTensor, Operator};
use jetmoe_format::{CustomOperator, DOMAIN, Operand};
use jetmoe_kernels::ExecContext;
use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::attention::LAYER;
use crate::custom_ops::{NodeAttributes, operand_value};
use crate::operator::{Kernel, ValueType, boxed};
use crate::shared_cache::StepCache;
use crate::threads::StepThreads;

/// Name of the operator in rewritten graphs; tract has another one of the name `Attention`.
pub(crate) const FUSED_ATTENTION: &str = "JetMoeAttention";

/// Registers the operator.
pub(crate) fn register(register: &mut tract_onnx::model::OnnxOpRegister) {
    register.insert(FUSED_ATTENTION, |_, node| {
        let operator = Operator::new(CustomOperator::Attention.name(), &NodeAttributes(node))?;
        let layer = node.get_attr_opt::<i64>(LAYER)?.map(usize::try_from).transpose()?;
        Ok((boxed(FusedAttention { operator, layer }), Vec::new()))
    });
}

/// Whether a node is one of the operator.
pub(crate) fn is_fused_attention(node: &NodeProto) -> bool {
    node.domain == DOMAIN && node.op_type == CustomOperator::Attention.name()
}

/// Indices of the operands that are the cache.
pub(crate) fn cache_operands() -> TractResult<std::ops::Range<usize>> {
    let operands = CustomOperator::Attention.schema().operands;
    let first = operands.iter().position(|operand: &Operand| operand.is_updated());
    Ok(first.context("attention has no cache")?..operands.len())
}

/// Gives this operator's name to those that are left in a graph, and keeps their first result alone.
pub(crate) fn replace_others(graph: &mut GraphProto) {
    for node in graph.node.iter_mut().filter(|node| is_fused_attention(node)) {
        node.op_type = FUSED_ATTENTION.to_owned();
        node.output.truncate(1);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FusedAttention {
    operator: Operator,
    /// The layer whose cache it updates; `None` if its cache is among the operands.
    layer: Option<usize>,
}

impl Kernel for FusedAttention {
    fn name(&self) -> StaticName {
        FUSED_ATTENTION.into()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let shapes: Vec<&[TDim]> = operands.iter().map(|(_, shape)| shape.as_slice()).collect();
        let shapes = self.operator.result_shapes(&shapes)?.into_iter();
        Ok(shapes.map(|shape| (f32::datum_type(), shape.into())).collect())
    }

    fn compute(&self, context: &EvalContext<'_>, mut operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut own_cache = operands.drain(cache_operands()?.start.min(operands.len())..);
        let result = match (self.layer, own_cache.next(), own_cache.next()) {
            (Some(layer), None, None) => {
                drop(own_cache);
                let (keys, values) = StepCache::layer(context, layer)?;
                self.attend(&operands, &mut keys.lock(), &mut values.lock())?
            }
            (None, Some(keys), Some(values)) => {
                drop(own_cache);
                self.attend(&operands, &mut keys.into_tensor(), &mut values.into_tensor())?
            }
            _ => bail!("{FUSED_ATTENTION} has one cache, of a layer or among its operands"),
        };
        Ok(tvec![result.into_tvalue()])
    }
}

impl FusedAttention {
    fn attend(&self, operands: &[TValue], keys: &mut Tensor, values: &mut Tensor) -> TractResult<Tensor> {
        let views = operands.iter().map(|value| value.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let operands = operands.iter().zip(&views).zip(self.operator.schema().operands);
        let operands =
            operands.map(|((value, view), operand)| operand_value(value.shape(), operand.element(), view));
        let operands = operands.collect::<TractResult<Vec<_>>>()?;
        let step = self.operator.bind_attention(&operands)?;
        let mut result = Tensor::zero::<f32>(step.shape())?;
        {
            let mut elements = result.try_as_plain_ram_mut()?;
            let (keys_shape, values_shape) = (keys.shape().to_vec(), values.shape().to_vec());
            let (mut keys, mut values) = (keys.try_as_plain_ram_mut()?, values.try_as_plain_ram_mut()?);
            let cache = [
                CacheTensor { shape: keys_shape, bytes: keys.as_slice_mut::<u8>()? },
                CacheTensor { shape: values_shape, bytes: values.as_slice_mut::<u8>()? },
            ];
            let threads = StepThreads::current();
            let exec_context = ExecContext { isa: operator::isa(true)?, threads: &threads };
            step.compute(exec_context, cache, elements.as_slice_mut::<f32>()?)?;
        }
        Ok(result)
    }
}
