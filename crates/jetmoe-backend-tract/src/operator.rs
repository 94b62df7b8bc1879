//! What tract asks of an operator, written once for all operators of this crate.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use half::f16;
use jetmoe_format::ElementType;
use tract_onnx::pb::AttributeProto;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

/// Element type and shape of a value.
pub(crate) type ValueType = (DatumType, TVec<TDim>);

/// An operator of this crate. [`boxed`] makes an operator of tract of it.
pub(crate) trait Kernel: fmt::Debug + Clone + Eq + Hash + Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> StaticName;

    /// Types of its results for operands of these types. Refuses operands that it cannot take.
    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>>;

    /// Computes the results.
    fn compute(&self, context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>>;

    /// How many results it has.
    fn results(&self) -> usize {
        1
    }

    /// Whether a dimension of a result is known only after a run.
    fn has_runtime_dimensions(&self) -> bool {
        false
    }
}

/// The kernel as an operator that tract's parser of ONNX can return.
pub(crate) fn boxed(kernel: impl Kernel) -> Box<dyn InferenceOp> {
    expand(KernelOp(kernel))
}

/// A kernel as an operator of tract.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KernelOp<K>(pub(crate) K);

impl<K: Kernel> Expansion for KernelOp<K> {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.0.results())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        operands: &'p [TensorProxy],
        results: &'p [TensorProxy],
    ) -> InferenceResult {
        let types: Vec<_> = operands.iter().map(|operand| (&operand.datum_type).bex()).collect();
        solver.given_all(types, move |solver, types| {
            let shapes: Vec<_> = operands.iter().map(|operand| (&operand.shape).bex()).collect();
            solver.given_all(shapes, move |solver, shapes| {
                let operands: Vec<ValueType> = types.iter().copied().zip(shapes).collect();
                for (result, (element, shape)) in results.iter().zip(self.0.result_types(&operands)?) {
                    solver.equals(&result.datum_type, element)?;
                    solver.equals(&result.shape, shape)?;
                }
                Ok(())
            })
        })
    }

    fn wire(&self, name: &str, model: &mut TypedModel, operands: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(name, self.clone(), operands)
    }
}

impl<K: Kernel> Op for KernelOp<K> {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn mints_runtime_symbols(&self) -> bool {
        self.0.has_runtime_dimensions()
    }

    op_as_typed_op!();
}

impl<K: Kernel> EvalOp for KernelOp<K> {
    // Weights and caches belong to a plan and its sessions.
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.compute(context, operands)
    }
}

impl<K: Kernel> TypedOp for KernelOp<K> {
    as_op!();

    fn output_facts(&self, operands: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let operands: Vec<ValueType> =
            operands.iter().map(|fact| (fact.datum_type, fact.shape.to_tvec())).collect();
        let types = self.0.result_types(&operands)?;
        Ok(types.into_iter().map(|(element, shape)| element.fact(shape)).collect())
    }
}

/// tract's name of an element type; of those that graphs do not pass to tract, float32.
pub(crate) fn datum_type(element: ElementType) -> DatumType {
    match element {
        ElementType::Int64 => i64::datum_type(),
        ElementType::Float16 => f16::datum_type(),
        _ => f32::datum_type(),
    }
}

/// An attribute of a node that this crate adds to a graph.
pub(crate) fn integer_attribute(name: &str, value: usize) -> TractResult<AttributeProto> {
    Ok(AttributeProto {
        name: name.to_owned(),
        i: i64::try_from(value)?,
        r#type: AttributeType::Int as i32,
        ..AttributeProto::default()
    })
}

/// What an operator shares with others, such as its weights; two are equal only if they are the same.
#[derive(Debug)]
pub(crate) struct ByAddress<T>(pub(crate) Arc<T>);

impl<T> Clone for ByAddress<T> {
    fn clone(&self) -> Self {
        ByAddress(self.0.clone())
    }
}

impl<T> PartialEq for ByAddress<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for ByAddress<T> {}

impl<T> Hash for ByAddress<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
