//! The custom operators, domain `jetmoe`: how a backend computes a node of one.
//!
//! Each operator takes its activations first, then the codes of its weights, `[experts, panels, blocks, bytes of a block]`,
//! then scales and zero points where there are any, `[experts, panels, groups, 32]`; `jetmoe-kernels` has the layout.

use std::iter::Product;
use std::sync::OnceLock;

use half::f16;
use jetmoe_artifact::names::operators::{
    DOMAIN, EXPERT_LINEAR, EXPERT_LINEAR_SUM, EXPERT_MLP, LINEAR, LOOK_UP,
};
use jetmoe_kernels::{
    Activation, Element, ExecContext, Isa, Layout, Mlp, RowOrder, TopK, Weight, expert_linear,
    expert_linear_sum, expert_mlp, gather_rows, linear,
};

use crate::{Error, Result};

/// An operator without its weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operator {
    /// x `[rows, inputs]` to `[rows, outputs]`
    Linear(Matrix),
    /// x `[tokens, inputs]`, experts `[tokens, k]` to `[tokens * k, outputs]`
    ExpertLinear(Matrix),
    /// x `[tokens * k, inputs]`, experts and gates `[tokens, k]` to `[tokens, outputs]`
    ExpertLinearSum(Matrix),
    /// x `[tokens, hidden]`, experts and gates `[tokens, k]` to `[tokens, hidden]`
    ExpertMlp {
        /// The first products, gate and up-projection in one matrix.
        gate_and_up: Matrix,
        /// The last product.
        down: Matrix,
        /// Applied to the gate.
        activation: Activation,
    },
    /// ids of any shape to `[...ids, inputs]`
    LookUp(Matrix),
}

/// One expert's matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    element: Element,
    order: RowOrder,
}

/// Element type of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperandType {
    /// Activations and gates.
    Float32,
    /// Experts and token ids.
    Int64,
    /// Codes and zero points.
    UInt8,
    /// Scales.
    Float16,
}

/// Elements of an operand.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// Of [`OperandType::Float32`].
    Float32(&'a [f32]),
    /// Of [`OperandType::Int64`].
    Int64(&'a [i64]),
    /// Of [`OperandType::UInt8`].
    UInt8(&'a [u8]),
    /// Of [`OperandType::Float16`].
    Float16(&'a [f16]),
}

/// An operand of a node.
#[derive(Debug, Clone)]
pub struct Operand<'a> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub elements: Elements<'a>,
}

/// Attributes of a node.
pub trait Attributes {
    /// An integer, `None` if there is none of that name.
    fn integer(&self, name: &str) -> Option<i64>;

    /// A text, `None` if there is none of that name.
    fn text(&self, name: &str) -> Option<String>;
}

/// What a node of an operator takes.
#[derive(Debug)]
pub struct Specification {
    /// The operator's name.
    pub name: &'static str,
    /// Types of the operands that are always there.
    pub required: &'static [OperandType],
    /// Types of those that may be absent from the end.
    pub optional: &'static [OperandType],
}

/// All operators.
pub const ALL: &[Specification] = {
    use OperandType::{Float16, Float32, Int64, UInt8};
    &[
        Specification { name: LINEAR, required: &[Float32, UInt8], optional: &[Float16, UInt8] },
        Specification {
            name: EXPERT_LINEAR,
            required: &[Float32, Int64, UInt8],
            optional: &[Float16, UInt8],
        },
        Specification {
            name: EXPERT_LINEAR_SUM,
            required: &[Float32, Int64, Float32, UInt8],
            optional: &[Float16, UInt8],
        },
        Specification {
            name: EXPERT_MLP,
            required: &[Float32, Int64, Float32, UInt8, UInt8],
            optional: &[Float16, Float16, UInt8, UInt8],
        },
        Specification { name: LOOK_UP, required: &[Int64, UInt8], optional: &[Float16, UInt8] },
    ]
};

impl Specification {
    /// The specification of a name.
    ///
    /// # Errors
    /// [`Error::Operator`] for a name that no operator has.
    pub fn from_name(name: &str) -> Result<&'static Self> {
        ALL.iter().find(|known| known.name == name).ok_or_else(|| unknown(name))
    }

    /// Types of all operands.
    pub fn types(&self) -> Vec<OperandType> {
        [self.required, self.optional].concat()
    }
}

fn unknown(name: &str) -> Error {
    problem(&format!("{DOMAIN}.{name}"), "is unknown")
}

fn problem(operator: &str, problem: impl Into<String>) -> Error {
    Error::Operator { operator: operator.to_owned(), problem: problem.into() }
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

impl Operator {
    /// The operator of a node.
    ///
    /// # Errors
    /// [`Error::Operator`] for an attribute that is missing or makes no sense.
    pub fn new(name: &str, attributes: &dyn Attributes) -> Result<Self> {
        let integer =
            |key: &str| attributes.integer(key).ok_or_else(|| problem(name, format!("no attribute {key}")));
        let size = |key: &str| {
            let found = integer(key)?;
            usize::try_from(found)
                .ok()
                .filter(|size| *size > 0)
                .ok_or_else(|| problem(name, format!("{key} is {found}")))
        };
        let element = |bits: &str, group_size: &str| {
            Ok::<_, Error>(Element::new(integer(bits)?, integer(group_size)?)?)
        };
        if name == EXPERT_MLP {
            let (hidden, intermediate) = (size("hidden")?, size("intermediate")?);
            let found = attributes.text("activation").unwrap_or_default();
            let activation = Activation::from_name(&found)
                .ok_or_else(|| problem(name, format!("unknown activation {found:?}")))?;
            let gate_and_up = Matrix {
                outputs: 2 * intermediate,
                inputs: hidden,
                element: element("up_bits", "up_group_size")?,
                order: RowOrder::Halves,
            };
            let down = Matrix {
                outputs: hidden,
                inputs: intermediate,
                element: element("down_bits", "down_group_size")?,
                order: RowOrder::AsStored,
            };
            return Ok(Operator::ExpertMlp { gate_and_up, down, activation });
        }
        let matrix = Matrix {
            outputs: size("outputs")?,
            inputs: size("inputs")?,
            element: element("bits", "group_size")?,
            order: RowOrder::AsStored,
        };
        match name {
            LINEAR => Ok(Operator::Linear(matrix)),
            EXPERT_LINEAR => Ok(Operator::ExpertLinear(matrix)),
            EXPERT_LINEAR_SUM => Ok(Operator::ExpertLinearSum(matrix)),
            LOOK_UP => Ok(Operator::LookUp(matrix)),
            _ => Err(unknown(name)),
        }
    }

    /// Shape of the result for operands of these shapes, in numbers or in symbols.
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing or a scalar.
    pub fn result_shape<D>(&self, shapes: &[&[D]]) -> Result<Vec<D>>
    where
        D: Clone + From<usize> + for<'a> Product<&'a D>,
    {
        let shape = |index: usize| shapes.get(index).copied().ok_or_else(|| wrong(index, "is missing"));
        let rows = |index: usize| shape(index)?.first().cloned().ok_or_else(|| wrong(index, "is a scalar"));
        Ok(match self {
            Operator::Linear(matrix) => vec![rows(0)?, matrix.outputs.into()],
            Operator::ExpertLinear(matrix) => vec![shape(1)?.iter().product(), matrix.outputs.into()],
            Operator::ExpertLinearSum(matrix) => vec![rows(1)?, matrix.outputs.into()],
            Operator::ExpertMlp { down, .. } => vec![rows(0)?, down.outputs.into()],
            Operator::LookUp(matrix) => [shape(0)?, &[matrix.inputs.into()]].concat(),
        })
    }

    /// Computes the result, of the shape of [`Operator::result_shape`].
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing or of another type, [`Error::Kernels`] for sizes that do not fit.
    pub fn compute(
        &self,
        context: ExecContext<'_>,
        operands: &[Operand<'_>],
        result: &mut [f32],
    ) -> Result<()> {
        match self {
            Operator::Linear(matrix) => {
                linear(context, floats(operands, 0)?, &matrix.weight(operands, [1, 2, 3])?, result)
            }
            Operator::ExpertLinear(matrix) => {
                let weight = matrix.weight(operands, [2, 3, 4])?;
                expert_linear(context, floats(operands, 0)?, top_k(operands)?, &weight, result)
            }
            Operator::ExpertLinearSum(matrix) => {
                let weight = matrix.weight(operands, [3, 4, 5])?;
                let (x, gates) = (floats(operands, 0)?, floats(operands, 2)?);
                expert_linear_sum(context, x, top_k(operands)?, gates, &weight, result)
            }
            Operator::ExpertMlp { gate_and_up, down, activation } => {
                let mlp = Mlp {
                    gate_and_up: gate_and_up.weight(operands, [3, 5, 7])?,
                    down: down.weight(operands, [4, 6, 8])?,
                    activation: *activation,
                };
                let (x, gates) = (floats(operands, 0)?, floats(operands, 2)?);
                expert_mlp(context, x, top_k(operands)?, gates, &mlp, result)
            }
            Operator::LookUp(matrix) => {
                gather_rows(ids(operands, 0)?, &matrix.weight(operands, [1, 2, 3])?, result)
            }
        }
        .map_err(Error::from)
    }
}

impl Matrix {
    /// The weight whose codes, scales and zero points are the operands with these numbers. How many experts it has follows
    /// from the codes.
    fn weight<'a>(
        &self,
        operands: &[Operand<'a>],
        [codes, scales, zero_points]: [usize; 3],
    ) -> Result<Weight<'a>> {
        let Elements::UInt8(code_bytes) = operand(operands, codes)?.elements else {
            return Err(wrong(codes, "holds codes and is not uint8"));
        };
        let scales = match operands.get(scales).map(|operand| operand.elements) {
            None => None,
            Some(Elements::Float16(scales)) => Some(scales),
            Some(_) => return Err(wrong(scales, "holds scales and is not float16")),
        };
        let zero_points = match operands.get(zero_points).map(|operand| operand.elements) {
            None => None,
            Some(Elements::UInt8(zero_points)) => Some(zero_points),
            Some(_) => return Err(wrong(zero_points, "holds zero points and is not uint8")),
        };
        let Matrix { outputs, inputs, element, order } = *self;
        let one = Layout { experts: 1, outputs, inputs, element, order };
        let experts = code_bytes.len() / (one.panels() * one.panel_bytes());
        Ok(Weight::new(Layout { experts, ..one }, code_bytes, scales, zero_points)?)
    }
}

/// Shapes of operands.
pub fn shapes<'a>(operands: &'a [Operand<'_>]) -> Vec<&'a [usize]> {
    operands.iter().map(|operand| operand.shape.as_slice()).collect()
}

fn wrong(index: usize, what: &str) -> Error {
    problem(DOMAIN, format!("operand {index} {what}"))
}

fn operand<'a, 'b>(operands: &'b [Operand<'a>], index: usize) -> Result<&'b Operand<'a>> {
    operands.get(index).ok_or_else(|| wrong(index, "is missing"))
}

fn floats<'a>(operands: &[Operand<'a>], index: usize) -> Result<&'a [f32]> {
    match operand(operands, index)?.elements {
        Elements::Float32(elements) => Ok(elements),
        _ => Err(wrong(index, "is not float32")),
    }
}

fn ids<'a>(operands: &[Operand<'a>], index: usize) -> Result<&'a [i64]> {
    match operand(operands, index)?.elements {
        Elements::Int64(elements) => Ok(elements),
        _ => Err(wrong(index, "is not int64")),
    }
}

/// Experts `[tokens, k]` are always the second operand.
fn top_k<'a>(operands: &[Operand<'a>]) -> Result<TopK<'a>> {
    let k = operand(operands, 1)?.shape.last().copied().unwrap_or(0);
    Ok(TopK { experts: ids(operands, 1)?, k })
}
