//! `GroupQueryAttention` whose cache is an operand and no cache of a layer: it computes as those of the layers do, and returns
//! no longer cache. Copies of graphs have it, in which attention is observed.

use tract_onnx::pb::GraphProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::CachedAttention;
use crate::operator::{Kernel, ValueType, boxed};

/// Name of the operator in rewritten graphs.
const OPERATOR: &str = "JetMoeAttentionOverOperands";

/// Operands: those of attention with a cache, with past keys and values in the middle.
const OPERANDS: usize = 7;

/// Registers the operator.
pub(super) fn register(register: &mut tract_onnx::model::OnnxOpRegister) {
    register.insert(OPERATOR, |_, node| {
        Ok((boxed(OperandCacheAttention(CachedAttention::of_node(node, 0)?)), Vec::new()))
    });
}

/// Gives this operator's name to every `GroupQueryAttention` that is left in a graph, and keeps its first result alone.
pub(crate) fn replace_others(graph: &mut GraphProto) {
    for node in graph.node.iter_mut().filter(|node| node.op_type == "GroupQueryAttention") {
        node.op_type = OPERATOR.to_owned();
        node.output.truncate(1);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OperandCacheAttention(CachedAttention);

impl Kernel for OperandCacheAttention {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let [queries, keys, values, past_key, past_value, last_places, longest] = operands else {
            bail!("{OPERATOR} takes {OPERANDS} operands, and there are {}", operands.len())
        };
        for past in [past_key, past_value] {
            ensure!(
                past.0 == f32::datum_type() && past.1.len() == 4,
                "a cache is {past:?}, expected 4 axes of float32"
            );
        }
        self.0.result_types(&[queries, keys, values, last_places, longest].map(ValueType::clone))
    }

    fn compute(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Ok([queries, keys, values, past_key, past_value, last_places, _longest]) =
            <[TValue; OPERANDS]>::try_from(operands.into_vec())
        else {
            bail!("{OPERATOR} takes {OPERANDS} operands")
        };
        ensure!(past_key.rank() == 4, "a cache is {:?}", past_key.shape());
        let (mut keys_so_far, mut values_so_far) = (past_key.into_tensor(), past_value.into_tensor());
        let operands = [&queries, &keys, &values, &last_places];
        let result = self.0.attend(operands, &mut keys_so_far, &mut values_so_far)?;
        Ok(tvec![result.into_tvalue()])
    }
}
