//! The operator that multiplies with a quantized weight.

use std::sync::Arc;

use jetmoe_backend::operator;
use jetmoe_format::{PANEL_ROWS, PackedLayout, PackedWeight};
use jetmoe_kernels::{ExecContext, linear_float32};
use rayon::prelude::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::operator::{ByAddress, Kernel, KernelOp, ValueType, boxed};
use crate::threads::StepThreads;

/// Its name in the rewritten graph. No exporter writes it.
pub(crate) const OPERATOR: &str = "JetmoeQuantizedMatMul";
/// Its attributes.
pub(crate) const WEIGHT: &str = "weight";
pub(crate) const INPUTS: &str = "inputs";
pub(crate) const OUTPUTS: &str = "outputs";

/// A weight as it is stored for `DequantizeLinear`, along columns.
pub(crate) struct StoredWeight<'a> {
    /// `[inputs, outputs]`
    pub(crate) codes: &'a [u8],
    pub(crate) is_signed: bool,
    /// `[groups, outputs]`
    pub(crate) scales: Vec<f32>,
    /// `[groups, outputs]`, one byte each, without a sign
    pub(crate) zero_points: Option<Vec<u8>>,
}

/// A weight in panels.
#[derive(Debug)]
pub(crate) struct Panels {
    layout: PackedLayout,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<u8>>,
}

/// Panels that one task packs: their parts of a stored row share cache lines.
const PANELS_PER_TASK: usize = 8;

impl Panels {
    /// Packs a weight.
    pub(crate) fn pack(layout: PackedLayout, stored: StoredWeight<'_>) -> TractResult<Self> {
        let mut codes = vec![0; layout.codes_shape().iter().product()];
        let tasks = codes.par_chunks_mut(PANELS_PER_TASK * layout.panel_bytes()).enumerate();
        tasks.try_for_each(|(task, panels)| {
            layout.pack_transposed(panels, task * PANELS_PER_TASK, stored.codes, stored.is_signed)
        })?;
        Ok(Panels {
            layout,
            codes,
            scales: by_panel(&layout, "the scales", &stored.scales)?,
            zero_points: stored
                .zero_points
                .map(|points| by_panel(&layout, "the zero points", &points))
                .transpose()?,
        })
    }

    /// `x · weight` in float32: from `[rows, inputs]` to `[rows, outputs]`.
    fn multiply(&self, x: &[f32], y: &mut [f32]) -> TractResult<()> {
        let (scales, zero_points) = (Some(self.scales.as_slice()), self.zero_points.as_deref());
        let weight = PackedWeight::new(self.layout, &self.codes, scales, zero_points)?;
        let threads = StepThreads::current();
        linear_float32(ExecContext { isa: operator::isa(true)?, threads: &threads }, x, &weight, y)?;
        Ok(())
    }
}

/// Scales or zero points `[groups, outputs]` as `[panels, groups, 32]`.
fn by_panel<T: Copy + Default>(layout: &PackedLayout, tensor: &str, stored: &[T]) -> TractResult<Vec<T>> {
    let expected = layout.scheme.groups(layout.inputs) * layout.outputs;
    ensure!(stored.len() == expected, "{tensor} have {} elements, expected {expected}", stored.len());
    // Panels have whole blocks, so with groups of 16 columns the last one may be padding.
    let mut panels = vec![T::default(); layout.panels() * layout.groups() * PANEL_ROWS];
    for (panel, values) in panels.chunks_exact_mut(layout.groups() * PANEL_ROWS).enumerate() {
        let first = panel * PANEL_ROWS;
        let width = PANEL_ROWS.min(layout.outputs - first);
        for (values, stored) in values.chunks_exact_mut(PANEL_ROWS).zip(stored.chunks_exact(layout.outputs)) {
            values[..width].copy_from_slice(&stored[first..][..width]);
        }
    }
    Ok(panels)
}

/// `x · w`. Takes `x` `[..., inputs]` and returns `[..., outputs]` of the type of `x`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct QuantizedProduct {
    /// Which of the graph's weights.
    weight: usize,
    inputs: usize,
    outputs: usize,
    panels: Option<ByAddress<Panels>>,
}

/// The operator of a node that [`crate::quantized::rewrite`] added.
pub(crate) fn parse(
    _context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let product = QuantizedProduct {
        weight: node.get_attr(WEIGHT)?,
        inputs: node.get_attr(INPUTS)?,
        outputs: node.get_attr(OUTPUTS)?,
        panels: None,
    };
    Ok((boxed(product), Vec::new()))
}

/// Gives each product its weight.
pub(crate) fn attach_weights(model: &mut TypedModel, weights: &[Arc<Panels>]) -> TractResult<()> {
    for node in &mut model.nodes {
        if let Some(KernelOp(product)) = node.op_as_mut::<KernelOp<QuantizedProduct>>() {
            let weight = weights.get(product.weight);
            let weight =
                weight.with_context(|| format!("there is no quantized weight {}", product.weight))?;
            product.panels = Some(ByAddress(weight.clone()));
        }
    }
    Ok(())
}

impl Kernel for QuantizedProduct {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let [(element, shape)] = operands else { bail!("{} operands instead of one", operands.len()) };
        ensure!(element.is_float(), "multiplies {element:?} with a quantized weight");
        ensure!(
            shape.last() == Some(&self.inputs.to_dim()),
            "multiplies {shape:?} with a quantized weight of {} rows",
            self.inputs
        );
        let mut shape = shape.clone();
        shape.pop();
        shape.push(self.outputs.to_dim());
        Ok(tvec![(*element, shape)])
    }

    fn compute(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = &*operands else { bail!("{} operands instead of one", operands.len()) };
        let panels = self.panels.as_ref().context("the weight of a product was not loaded")?;
        let element = x.datum_type();
        let mut shape: TVec<usize> = x.shape().into();
        shape.pop();
        shape.push(self.outputs);
        let x = x.cast_to::<f32>()?;
        let x = x.try_as_plain_ram()?;
        let mut y = Tensor::zero::<f32>(&shape)?;
        let mut rows = y.try_as_plain_ram_mut()?;
        panels.0.multiply(x.as_slice::<f32>()?, rows.as_slice_mut::<f32>()?)?;
        if element != f32::datum_type() {
            y = y.cast_to_dt(element)?.into_owned();
        }
        Ok(tvec![y.into_tvalue()])
    }
}
