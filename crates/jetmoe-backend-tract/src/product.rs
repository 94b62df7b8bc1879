//! The operator that multiplies with a quantized weight.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use crate::kernel::{CodeType, Scales, Weight, multiply};
use crate::threads::on_step_threads;

/// Its name in the rewritten graph. No exporter writes it.
pub(crate) const OPERATOR: &str = "JetmoeQuantizedMatMul";
/// Its attributes.
pub(crate) const INPUTS: &str = "inputs";
pub(crate) const OUTPUTS: &str = "outputs";
pub(crate) const GROUP_SIZE: &str = "group_size";
pub(crate) const BITS: &str = "bits";
pub(crate) const SIGNED: &str = "signed";

/// `x · w`. Takes `x` `[..., inputs]`, the codes as a list of bytes, the scales `[groups, outputs]` and optionally the
/// zero points as a list of bytes; returns `[..., outputs]` of the type of `x`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct QuantizedProduct {
    inputs: usize,
    outputs: usize,
    group_size: usize,
    code_type: CodeType,
}

/// The operator of a node that [`crate::quantized::rewrite`] added.
pub(crate) fn parse(
    _context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let code_type = match (node.get_attr(BITS)?, node.get_attr(SIGNED)?) {
        (4i64, true) => CodeType::Int4,
        (4, false) => CodeType::UInt4,
        (_, true) => CodeType::Int8,
        (_, false) => CodeType::UInt8,
    };
    let product = QuantizedProduct {
        inputs: node.get_attr(INPUTS)?,
        outputs: node.get_attr(OUTPUTS)?,
        group_size: node.get_attr(GROUP_SIZE)?,
        code_type,
    };
    ensure!(
        product.inputs > 0 && product.group_size > 0,
        "a quantized weight without rows or with groups of none"
    );
    Ok((expand(product), Vec::new()))
}

impl Expansion for QuantizedProduct {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        operands: &'p [TensorProxy],
        products: &'p [TensorProxy],
    ) -> InferenceResult {
        solver.equals(&products[0].datum_type, &operands[0].datum_type)?;
        solver.given(&operands[0].shape, move |solver, mut shape| {
            if let Some(last) = shape.last_mut() {
                *last = self.outputs.to_dim();
            }
            solver.equals(&products[0].shape, shape)
        })
    }

    fn wire(&self, name: &str, model: &mut TypedModel, operands: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(name, self.clone(), operands)
    }
}

impl Op for QuantizedProduct {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let QuantizedProduct { inputs, outputs, group_size, code_type } = self;
        Ok(vec![format!("{code_type:?} [{inputs}, {outputs}] in groups of {group_size}")])
    }

    op_as_typed_op!();
}

impl EvalOp for QuantizedProduct {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, codes, scales, zero_points @ ..] = &*operands else {
            bail!("{} operands instead of three or four", operands.len())
        };
        let element = x.datum_type();
        let mut shape: TVec<usize> = x.shape().into();
        if let Some(last) = shape.last_mut() {
            *last = self.outputs;
        }
        let (x, codes, scales) = (x.cast_to::<f32>()?, codes.try_as_plain_ram()?, scales.try_as_plain_ram()?);
        let zero_points = zero_points.first().map(|points| points.try_as_plain_ram()).transpose()?;
        let weight = Weight {
            inputs: self.inputs,
            outputs: self.outputs,
            group_size: self.group_size,
            code_type: self.code_type,
            codes: codes.as_bytes(),
            scales: match scales.datum_type() {
                DatumType::F16 => Scales::Float16(scales.as_slice::<f16>()?),
                _ => Scales::Float32(scales.as_slice::<f32>()?),
            },
            zero_points: zero_points.as_ref().map(|points| points.as_bytes()),
        };
        let mut product = Tensor::zero::<f32>(&shape)?;
        let x = x.try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let mut rows = product.try_as_plain_ram_mut()?;
        let rows = rows.as_slice_mut::<f32>()?;
        on_step_threads(|| multiply(x, &weight, rows));
        if product.datum_type() != element {
            product = product.cast_to_dt(element)?.into_owned();
        }
        Ok(tvec![product.into_tvalue()])
    }
}

impl TypedOp for QuantizedProduct {
    as_op!();

    fn output_facts(&self, operands: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [x, codes, scales, zero_points @ ..] = operands else {
            bail!("{} operands instead of three or four", operands.len())
        };
        ensure!(x.datum_type.is_float(), "multiplies {:?} with a quantized weight", x.datum_type);
        ensure!(
            x.shape.last() == Some(&self.inputs.to_dim()),
            "multiplies {x:?} with a quantized weight of {} rows",
            self.inputs
        );
        let scale_count = self.inputs.div_ceil(self.group_size) * self.outputs;
        let has = |fact: &TypedFact, count: usize| fact.shape.volume() == count.to_dim();
        ensure!(has(codes, self.code_type.bytes(self.inputs * self.outputs)), "codes {codes:?} of {self:?}");
        ensure!(
            has(scales, scale_count) && matches!(scales.datum_type, DatumType::F32 | DatumType::F16),
            "scales {scales:?} of {self:?}"
        );
        for points in zero_points {
            ensure!(has(points, self.code_type.bytes(scale_count)), "zero points {points:?} of {self:?}");
        }
        let mut shape = x.shape.clone();
        shape.set(x.rank() - 1, self.outputs.to_dim());
        Ok(tvec![x.datum_type.fact(shape)])
    }

    fn cost(&self, operands: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let rows: TDim = operands[0].shape.iter().rev().skip(1).product();
        Ok(tvec![(Cost::FMA(f32::datum_type()), rows * self.inputs * self.outputs)])
    }
}
