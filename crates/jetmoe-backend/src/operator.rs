//! The custom operators, domain `jetmoe`: how a backend computes a node of one. Operands are found by name;
//! [`OperatorSchema`] has their order.

use std::iter::Product;
use std::sync::OnceLock;

use half::f16;
use jetmoe_format::{
    Attributes, CustomOperator, Operand, OperatorNode, OperatorSchema, PackedWeight, WeightSlot,
};
use jetmoe_kernels::{
    Activation, ExecContext, Isa, Mlp, TopK, expert_linear, expert_linear_sum, expert_mlp, gather_rows,
    linear,
};

use crate::{Error, Result};

/// A node of a custom operator, without its operands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Operator {
    node: OperatorNode,
    /// For an operator that has one.
    activation: Option<Activation>,
}

/// Elements of an operand.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// Activations and gates.
    Float32(&'a [f32]),
    /// Experts and token ids.
    Int64(&'a [i64]),
    /// Codes and zero points.
    UInt8(&'a [u8]),
    /// Scales.
    Float16(&'a [f16]),
}

/// The value of an operand.
#[derive(Debug, Clone)]
pub struct OperandValue<'a> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub elements: Elements<'a>,
}

/// The instruction set of this process, selected once.
///
/// # Errors
/// One that the environment names and that is not usable here.
pub fn isa() -> Result<Isa> {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    if let Some(chosen) = CHOSEN.get() {
        return Ok(*chosen);
    }
    let chosen = Isa::from_env_or_best()?;
    Ok(*CHOSEN.get_or_init(|| chosen))
}

/// Shapes of operands.
pub fn shapes<'a>(operands: &'a [OperandValue<'_>]) -> Vec<&'a [usize]> {
    operands.iter().map(|operand| operand.shape.as_slice()).collect()
}

impl Operator {
    /// The operator of a node.
    ///
    /// # Errors
    /// An unknown operator, or an attribute that is missing or makes no sense.
    pub fn new(name: &str, attributes: &dyn Attributes) -> Result<Self> {
        let node = OperatorNode::read(name, attributes)?;
        let activation = match node.operator {
            CustomOperator::ExpertMlp => {
                let problem = format!("unknown activation {:?}", node.activation);
                let unknown = || Error::Operator { operator: name.to_owned(), problem };
                Some(Activation::from_name(&node.activation).ok_or_else(unknown)?)
            }
            _ => None,
        };
        Ok(Operator { node, activation })
    }

    /// Which operands it has, in their order.
    pub fn schema(&self) -> &'static OperatorSchema {
        self.node.operator.schema()
    }

    /// Shape of the result for operands of these shapes, in numbers or in symbols. Those of weights may be left out.
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing or a scalar.
    pub fn result_shape<D>(&self, shapes: &[&[D]]) -> Result<Vec<D>>
    where
        D: Clone + From<usize> + for<'a> Product<&'a D>,
    {
        let shape = |operand| self.find(shapes, operand).copied();
        let rows =
            |operand| shape(operand)?.first().cloned().ok_or_else(|| self.wrong(operand, "is a scalar"));
        let outputs = |slot| Ok::<D, Error>(self.node.layout(slot)?.outputs.into());
        Ok(match self.node.operator {
            CustomOperator::Linear => vec![rows(Operand::X)?, outputs(WeightSlot::Only)?],
            CustomOperator::ExpertLinear => {
                vec![shape(Operand::Experts)?.iter().product(), outputs(WeightSlot::Only)?]
            }
            CustomOperator::ExpertLinearSum => vec![rows(Operand::Experts)?, outputs(WeightSlot::Only)?],
            CustomOperator::ExpertMlp => vec![rows(Operand::X)?, outputs(WeightSlot::Down)?],
            CustomOperator::Embedding => {
                [shape(Operand::Ids)?, &[self.node.layout(WeightSlot::Only)?.inputs.into()]].concat()
            }
        })
    }

    /// Computes the result, of the shape of [`Operator::result_shape`].
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing or of another type, [`Error::Kernels`] for sizes that do not fit.
    pub fn compute(
        &self,
        context: ExecContext<'_>,
        operands: &[OperandValue<'_>],
        result: &mut [f32],
    ) -> Result<()> {
        let floats = |operand| match self.find(operands, operand)?.elements {
            Elements::Float32(elements) => Ok(elements),
            _ => Err(self.wrong(operand, "is not float32")),
        };
        let indices = |operand| match self.find(operands, operand)?.elements {
            Elements::Int64(elements) => Ok(elements),
            _ => Err(self.wrong(operand, "is not int64")),
        };
        let top_k = || {
            let k = self.find(operands, Operand::Experts)?.shape.last().copied().unwrap_or(0);
            Ok::<_, Error>(TopK { experts: indices(Operand::Experts)?, k })
        };
        let weight = |slot| self.weight(operands, slot);
        match self.node.operator {
            CustomOperator::Linear => {
                linear(context, floats(Operand::X)?, &weight(WeightSlot::Only)?, result)?;
            }
            CustomOperator::ExpertLinear => {
                expert_linear(context, floats(Operand::X)?, top_k()?, &weight(WeightSlot::Only)?, result)?;
            }
            CustomOperator::ExpertLinearSum => {
                let (x, gates) = (floats(Operand::X)?, floats(Operand::Gates)?);
                expert_linear_sum(context, x, top_k()?, gates, &weight(WeightSlot::Only)?, result)?;
            }
            CustomOperator::ExpertMlp => {
                let mlp = Mlp {
                    gate_and_up: weight(WeightSlot::GateAndUp)?,
                    down: weight(WeightSlot::Down)?,
                    activation: self.activation.unwrap_or(Activation::Silu),
                };
                let (x, gates) = (floats(Operand::X)?, floats(Operand::Gates)?);
                expert_mlp(context, x, top_k()?, gates, &mlp, result)?;
            }
            CustomOperator::Embedding => {
                gather_rows(indices(Operand::Ids)?, &weight(WeightSlot::Only)?, result)?;
            }
        }
        Ok(())
    }

    /// A weight of the node. How many experts it has follows from the codes.
    fn weight<'a>(&self, operands: &[OperandValue<'a>], slot: WeightSlot) -> Result<PackedWeight<'a>> {
        let optional = |operand| self.schema().find(operands, operand).map(|value| value.elements);
        let codes = Operand::Codes(slot);
        let Elements::UInt8(codes) = self.find(operands, codes)?.elements else {
            return Err(self.wrong(codes, "is not uint8"));
        };
        let scales = match optional(Operand::Scales(slot)) {
            None => None,
            Some(Elements::Float16(scales)) => Some(scales),
            Some(_) => return Err(self.wrong(Operand::Scales(slot), "is not float16")),
        };
        let zero_points = match optional(Operand::ZeroPoints(slot)) {
            None => None,
            Some(Elements::UInt8(zero_points)) => Some(zero_points),
            Some(_) => return Err(self.wrong(Operand::ZeroPoints(slot), "is not uint8")),
        };
        Ok(PackedWeight::with_all_experts(self.node.layout(slot)?, codes, scales, zero_points)?)
    }

    fn find<'a, T>(&self, operands: &'a [T], operand: Operand) -> Result<&'a T> {
        self.schema().find(operands, operand).ok_or_else(|| self.wrong(operand, "is missing"))
    }

    fn wrong(&self, operand: Operand, what: &str) -> Error {
        let problem = format!("operand {operand:?} {what}");
        Error::Operator { operator: self.node.operator.to_string(), problem }
    }
}
