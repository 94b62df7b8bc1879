//! Our own operators, the domain `jetmoe`: what both runtimes do when they meet one, without knowing each other.
//!
//! Each operator takes the codes of a weight behind its other operands, `[experts, panels, blocks, bytes of a block]`, then
//! scales and zero points where there are any, `[experts, panels, groups, 32]`; `jetmoe-kernels` has the layout.

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

/// An operator without its weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    /// x `[rows, inputs]` to `[rows, outputs]`
    Linear(Matrix),
    /// x `[tokens, inputs]`, experts `[tokens, k]` to `[tokens * k, outputs]`
    ExpertLinear(Matrix),
    /// x `[tokens * k, inputs]`, experts and gates `[tokens, k]` to `[tokens, outputs]`
    ExpertLinearSum(Matrix),
    /// x `[tokens, hidden]`, experts and gates `[tokens, k]` to `[tokens, hidden]`
    ExpertMlp { gate_and_up: Matrix, down: Matrix, activation: Activation },
    /// ids of any shape to `[...ids, inputs]`
    LookUp(Matrix),
}

/// One expert's matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Matrix {
    outputs: usize,
    inputs: usize,
    element: Element,
    order: RowOrder,
}

/// Element type of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum OperandType {
    Float32,
    Int64,
    UInt8,
    Float16,
}

/// Elements of an operand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Elements<'a> {
    Float32(&'a [f32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    Float16(&'a [f16]),
}

/// An operand of a node.
#[derive(Debug, Clone)]
pub(crate) struct Operand<'a> {
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Elements<'a>,
}

/// Attributes of a node.
pub(crate) trait Attributes {
    fn integer(&self, name: &str) -> Option<i64>;
    fn text(&self, name: &str) -> Option<String>;
}

/// What a node of an operator takes.
#[derive(Debug)]
pub(crate) struct Specification {
    pub(crate) name: &'static str,
    /// Types of the operands that are always there.
    pub(crate) required: &'static [OperandType],
    /// Types of those that may be absent from the end.
    pub(crate) optional: &'static [OperandType],
}

/// All operators.
pub(crate) const ALL: &[Specification] = {
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
    /// That of a name.
    #[cfg(feature = "tract")]
    pub(crate) fn named(name: &str) -> Result<&'static Self, String> {
        ALL.iter().find(|known| known.name == name).ok_or_else(|| unknown(name))
    }

    /// Types of all operands.
    pub(crate) fn types(&self) -> Vec<OperandType> {
        [self.required, self.optional].concat()
    }
}

fn unknown(name: &str) -> String {
    format!("there is no operator {DOMAIN}.{name}")
}

/// The instruction set of this process, selected once.
pub(crate) fn isa() -> Result<Isa, String> {
    static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
    CHOSEN.get_or_init(|| Isa::from_env_or_best().map_err(|error| error.to_string())).clone()
}

impl Operator {
    /// The operator of a node.
    pub(crate) fn new(name: &str, attributes: &dyn Attributes) -> Result<Self, String> {
        let integer =
            |key: &str| attributes.integer(key).ok_or_else(|| format!("{name} has no attribute {key}"));
        let size = |key: &str| {
            let found = integer(key)?;
            usize::try_from(found)
                .ok()
                .filter(|size| *size > 0)
                .ok_or_else(|| format!("{key} of {name} is {found}"))
        };
        let element = |bits: &str, group_size: &str| {
            Element::new(integer(bits)?, integer(group_size)?).map_err(|error| error.to_string())
        };
        if name == EXPERT_MLP {
            let (hidden, intermediate) = (size("hidden")?, size("intermediate")?);
            let found = attributes.text("activation").unwrap_or_default();
            let activation =
                Activation::from_name(&found).ok_or_else(|| format!("unknown activation {found:?}"))?;
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
    pub(crate) fn result_shape<D>(&self, shapes: &[&[D]]) -> Result<Vec<D>, String>
    where
        D: Clone + From<usize> + for<'a> Product<&'a D>,
    {
        let shape =
            |index: usize| shapes.get(index).copied().ok_or_else(|| format!("operand {index} is missing"));
        let rows = |index: usize| {
            shape(index)?.first().cloned().ok_or_else(|| format!("operand {index} is a scalar"))
        };
        Ok(match self {
            Operator::Linear(matrix) => vec![rows(0)?, matrix.outputs.into()],
            Operator::ExpertLinear(matrix) => vec![shape(1)?.iter().product(), matrix.outputs.into()],
            Operator::ExpertLinearSum(matrix) => vec![rows(1)?, matrix.outputs.into()],
            Operator::ExpertMlp { down, .. } => vec![rows(0)?, down.outputs.into()],
            Operator::LookUp(matrix) => [shape(0)?, &[matrix.inputs.into()]].concat(),
        })
    }

    /// Computes the result, of the shape of [`Operator::result_shape`].
    pub(crate) fn compute(
        &self,
        context: ExecContext<'_>,
        operands: &[Operand<'_>],
        result: &mut [f32],
    ) -> Result<(), String> {
        let computed = match self {
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
        };
        computed.map_err(|error| error.to_string())
    }
}

impl Matrix {
    /// The weight whose codes, scales and zero points are operands with these numbers; how many experts it has follows from
    /// the codes.
    fn weight<'a>(
        &self,
        operands: &[Operand<'a>],
        [codes, scales, points]: [usize; 3],
    ) -> Result<Weight<'a>, String> {
        let Elements::UInt8(codes) = operand(operands, codes)?.elements else {
            return Err("codes of a weight are no bytes".to_owned());
        };
        let scales = match operands.get(scales).map(|operand| operand.elements) {
            None => None,
            Some(Elements::Float16(scales)) => Some(scales),
            Some(_) => return Err("scales of a weight are not float16".to_owned()),
        };
        let points = match operands.get(points).map(|operand| operand.elements) {
            None => None,
            Some(Elements::UInt8(points)) => Some(points),
            Some(_) => return Err("zero points of a weight are no bytes".to_owned()),
        };
        let Matrix { outputs, inputs, element, order } = *self;
        let one = Layout { experts: 1, outputs, inputs, element, order };
        let experts = codes.len() / (one.panels() * one.panel_bytes());
        Weight::new(Layout { experts, ..one }, codes, scales, points).map_err(|error| error.to_string())
    }
}

/// Shapes of operands.
pub(crate) fn shapes<'a>(operands: &'a [Operand<'_>]) -> Vec<&'a [usize]> {
    operands.iter().map(|operand| operand.shape.as_slice()).collect()
}

fn operand<'a, 'b>(operands: &'b [Operand<'a>], index: usize) -> Result<&'b Operand<'a>, String> {
    operands.get(index).ok_or_else(|| format!("operand {index} is missing"))
}

fn floats<'a>(operands: &[Operand<'a>], index: usize) -> Result<&'a [f32], String> {
    match operand(operands, index)?.elements {
        Elements::Float32(elements) => Ok(elements),
        _ => Err(format!("operand {index} is not float32")),
    }
}

fn ids<'a>(operands: &[Operand<'a>], index: usize) -> Result<&'a [i64], String> {
    match operand(operands, index)?.elements {
        Elements::Int64(elements) => Ok(elements),
        _ => Err(format!("operand {index} is not int64")),
    }
}

/// Experts `[tokens, k]` are always the second operand.
fn top_k<'a>(operands: &[Operand<'a>]) -> Result<TopK<'a>, String> {
    let k = operand(operands, 1)?.shape.last().copied().unwrap_or(0);
    Ok(TopK { experts: ids(operands, 1)?, k })
}
