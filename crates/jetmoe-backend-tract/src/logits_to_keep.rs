//! The last tokens of each sequence, for `logits_to_keep`. tract's `Slice` with a start known only at run time cannot count
//! from the end, so the import replaces it by an operator of this crate.

use std::collections::HashSet;

use jetmoe_artifact::{InputName, names};
use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::operator::{Kernel, ValueType, boxed};

/// Name of the operator in rewritten graphs.
const OPERATOR: &str = "JetMoeLastTokens";

/// The axis of tokens.
const TOKENS: usize = 1;

/// Registers the operator.
pub(crate) fn register(register: &mut OnnxOpRegister) {
    register.insert(OPERATOR, parse);
}

fn parse(context: &ParsingContext<'_>, _: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let length = context.template.symbols.sym(names::LOGITS_LENGTH);
    Ok((boxed(LastTokens { length }), Vec::new()))
}

/// Replaces the `Slice` that starts at the negative of `logits_to_keep`, if there is one.
pub(crate) fn rewrite(graph: &mut GraphProto) {
    let wanted = InputName::LogitsToKeep.to_string();
    let negated = graph.node.iter().filter(|node| node.op_type == "Neg" && node.input.contains(&wanted));
    let negated: HashSet<String> = negated.flat_map(|node| node.output.clone()).collect();
    for node in graph.node.iter_mut().filter(|node| node.op_type == "Slice") {
        if node.input.get(1).is_some_and(|start| negated.contains(start)) {
            node.op_type = OPERATOR.to_owned();
            node.input.truncate(1);
            node.input.push(wanted.clone());
        }
    }
}

/// `[batch, sequence, width]` and how many tokens `[1]`, 0 for all, to `[batch, logits_length, width]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LastTokens {
    length: Symbol,
}

impl Kernel for LastTokens {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let [(element, shape), _] = operands else { bail!("{OPERATOR} takes 2 operands") };
        let [batch, _, width] = shape.as_slice() else { bail!("tokens are {shape:?}") };
        Ok(tvec![(*element, tvec![batch.clone(), self.length.to_dim(), width.clone()])])
    }

    fn has_runtime_dimensions(&self) -> bool {
        true
    }

    fn compute(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Ok([tokens, count]) = <[TValue; 2]>::try_from(operands.into_vec()) else {
            bail!("{OPERATOR} takes 2 operands")
        };
        let [count] = *count.try_as_plain_ram()?.as_slice::<i64>()? else {
            bail!("how many tokens is {:?}", count.shape())
        };
        ensure!(tokens.rank() == 3, "tokens are {:?}", tokens.shape());
        let there = tokens.shape()[TOKENS];
        let kept = match usize::try_from(count)? {
            0 => there,
            count => count.min(there),
        };
        Ok(tvec![tokens.slice(TOKENS, there - kept, there)?.into_tvalue()])
    }
}
