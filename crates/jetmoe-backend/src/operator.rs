//! The custom operators, domain `jetmoe`: how a backend computes a node of one. Operands are found by name;
//! [`OperatorSchema`] has their order.

mod attention;

use std::fmt::Display;
use std::iter::Product;
use std::sync::OnceLock;

use half::f16;
use jetmoe_format::{
    Attributes, CustomOperator, ElementType, Epsilon, Operand, OperatorNode, OperatorSchema, PackedWeight,
    WeightSlot,
};
use jetmoe_kernels::{
    Activation, ExecContext, Isa, Mlp, Routing, Threads, TopK, expert_linear, expert_linear_sum, expert_mlp,
    gather_rows, linear, rms_norm, route,
};

pub use self::attention::{AttentionStep, CacheTensor, decode_cache};
use crate::prefetch::{Prefetch, Reads};
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
    /// Experts, token ids and masks.
    Int64(&'a [i64]),
    /// Codes and zero points.
    UInt8(&'a [u8]),
    /// Scales.
    Float16(&'a [f16]),
}

/// Memory for the elements of a result.
#[derive(Debug)]
pub enum ElementsMut<'a> {
    /// Activations, logits and gates.
    Float32(&'a mut [f32]),
    /// Experts.
    Int64(&'a mut [i64]),
}

/// The value of an operand.
#[derive(Debug, Clone)]
pub struct OperandValue<'a> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub elements: Elements<'a>,
}

/// The instruction set of this process, selected once; for a [batch-invariant](crate::LoadOptions::batch_invariant) graph the fastest one
/// below it that is.
///
/// # Errors
/// One that the environment names and that is not usable here.
pub fn isa(batch_invariant: bool) -> Result<Isa> {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    let chosen = match CHOSEN.get() {
        Some(chosen) => *chosen,
        None => {
            let chosen = Isa::from_env_or_best()?;
            *CHOSEN.get_or_init(|| chosen)
        }
    };
    Ok(if batch_invariant { chosen.batch_invariant() } else { chosen })
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

    /// Shapes of the results for operands of these shapes, in numbers or in symbols; without the cache that an operator
    /// [updates](Operator::updates_cache). The shapes of packed weights may be left out.
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing or a scalar.
    pub fn result_shapes<D>(&self, shapes: &[&[D]]) -> Result<Vec<Vec<D>>>
    where
        D: Clone + From<usize> + for<'a> Product<&'a D>,
    {
        let shape = |operand| self.find(shapes, operand).copied();
        let rows =
            |operand| shape(operand)?.first().cloned().ok_or_else(|| self.wrong(operand, "is a scalar"));
        let outputs = |slot| Ok::<D, Error>(self.node.layout(slot)?.outputs.into());
        let shape = match self.node.operator {
            CustomOperator::Linear => vec![rows(Operand::X)?, outputs(WeightSlot::Only)?],
            CustomOperator::ExpertLinear => {
                vec![shape(Operand::Experts)?.iter().product(), outputs(WeightSlot::Only)?]
            }
            CustomOperator::ExpertLinearSum => vec![rows(Operand::Experts)?, outputs(WeightSlot::Only)?],
            CustomOperator::ExpertMlp => vec![rows(Operand::X)?, outputs(WeightSlot::Down)?],
            CustomOperator::Embedding => {
                [shape(Operand::Ids)?, &[self.node.layout(WeightSlot::Only)?.inputs.into()]].concat()
            }
            CustomOperator::Attention => shape(Operand::Queries)?.to_vec(),
            CustomOperator::RmsNorm => shape(Operand::X)?.to_vec(),
            CustomOperator::Router => {
                let (tokens, experts) = (rows(Operand::X)?, rows(Operand::RouterWeight)?);
                let selected = vec![tokens.clone(), self.experts_per_token().into()];
                return Ok(vec![vec![tokens, experts], selected.clone(), selected]);
            }
        };
        Ok(vec![shape])
    }

    fn experts_per_token(&self) -> usize {
        self.node.experts_per_token.unwrap_or(0)
    }

    /// Checks the operands of a step against the node and against each other, before the result is allocated.
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing, of another type or of another size, and for an operator that
    /// [updates a cache](Operator::updates_cache).
    pub fn bind<'a>(&self, operands: &[OperandValue<'a>]) -> Result<BoundOperator<'a>> {
        for (operand, value) in self.schema().operands.iter().zip(operands) {
            let elements = value.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
            if elements.is_none() {
                return Err(self.wrong(*operand, format_args!("has the shape {:?}", value.shape)));
            }
        }
        let floats = |operand| match self.find(operands, operand)?.elements {
            Elements::Float32(elements) => Ok(elements),
            _ => Err(self.wrong(operand, "is not float32")),
        };
        let indices = |operand| match self.find(operands, operand)?.elements {
            Elements::Int64(elements) => Ok(elements),
            _ => Err(self.wrong(operand, "is not int64")),
        };
        let sized = |operand, rows: usize, width: usize| {
            let (elements, expected) = (floats(operand)?, rows.checked_mul(width));
            match expected == Some(elements.len()) {
                true => Ok(elements),
                false => Err(self.wrong(
                    operand,
                    format_args!("has {} elements for {rows} rows of {width}", elements.len()),
                )),
            }
        };
        let top_k = || {
            let experts = indices(Operand::Experts)?;
            match *self.find(operands, Operand::Experts)?.shape {
                [rows, k] if k > 0 && rows.checked_mul(k) == Some(experts.len()) => Ok(TopK { experts, k }),
                ref shape => Err(self.wrong(Operand::Experts, format_args!("has the shape {shape:?}"))),
            }
        };
        let weight = |slot| self.weight(operands, slot);
        let shapes = self.result_shapes(&shapes(operands))?;
        let rows = shapes.first().and_then(|shape| shape.first()).copied().unwrap_or(0);
        let inputs = match self.node.operator {
            CustomOperator::Linear => {
                let weight = weight(WeightSlot::Only)?;
                Inputs::Linear { x: sized(Operand::X, rows, weight.layout().inputs)?, weight }
            }
            CustomOperator::ExpertLinear => {
                let (weight, top_k) = (weight(WeightSlot::Only)?, top_k()?);
                let tokens = top_k.experts.len() / top_k.k;
                Inputs::ExpertLinear { x: sized(Operand::X, tokens, weight.layout().inputs)?, top_k, weight }
            }
            CustomOperator::ExpertLinearSum => {
                let (weight, top_k) = (weight(WeightSlot::Only)?, top_k()?);
                let x = sized(Operand::X, top_k.experts.len(), weight.layout().inputs)?;
                Inputs::ExpertLinearSum { x, top_k, gates: sized(Operand::Gates, rows, top_k.k)?, weight }
            }
            CustomOperator::ExpertMlp => {
                let mlp = Mlp {
                    gate_and_up: weight(WeightSlot::GateAndUp)?,
                    down: weight(WeightSlot::Down)?,
                    activation: self.activation.unwrap_or(Activation::Silu),
                };
                let (x, top_k) = (sized(Operand::X, rows, mlp.gate_and_up.layout().inputs)?, top_k()?);
                Inputs::ExpertMlp { x, top_k, gates: sized(Operand::Gates, rows, top_k.k)?, mlp }
            }
            CustomOperator::Embedding => {
                Inputs::Embedding { ids: indices(Operand::Ids)?, weight: weight(WeightSlot::Only)? }
            }
            CustomOperator::Attention => {
                return Err(self.wrong(Operand::PastKey, "is updated by the step, and was bound to read"));
            }
            CustomOperator::RmsNorm => {
                let weight = floats(Operand::NormWeight)?;
                let width = self.find(operands, Operand::X)?.shape.last().copied().unwrap_or(0);
                if width != weight.len() {
                    let problem = format_args!("has {} elements for rows of {width}", weight.len());
                    return Err(self.wrong(Operand::NormWeight, problem));
                }
                let epsilon = self.node.epsilon.map_or(0.0, Epsilon::value);
                Inputs::RmsNorm { x: floats(Operand::X)?, weight, epsilon }
            }
            CustomOperator::Router => {
                let (x, weight) = (&self.find(operands, Operand::X)?.shape, floats(Operand::RouterWeight)?);
                let weight_shape = &self.find(operands, Operand::RouterWeight)?.shape;
                let ([_, width], [experts, inputs]) = (x.as_slice(), weight_shape.as_slice()) else {
                    return Err(
                        self.wrong(Operand::RouterWeight, format_args!("has the shape {weight_shape:?}"))
                    );
                };
                if width != inputs {
                    let problem = format_args!("has the shape {weight_shape:?} for rows of {width}");
                    return Err(self.wrong(Operand::RouterWeight, problem));
                }
                let k = self.experts_per_token();
                if k > *experts {
                    let problem = format_args!("has {experts} experts, of which {k} are to be selected");
                    return Err(self.wrong(Operand::RouterWeight, problem));
                }
                Inputs::Router { x: sized(Operand::X, rows, *width)?, weight, width: *width, k }
            }
        };
        Ok(BoundOperator { inputs, operator: self.node.operator, shapes })
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

    fn wrong(&self, operand: Operand, what: impl Display) -> Error {
        let problem = format!("operand {operand:?} {what}");
        Error::Operator { operator: self.node.operator.to_string(), problem }
    }
}

/// A node of a custom operator with the operands of one step, which fit it.
#[derive(Debug, Clone)]
pub struct BoundOperator<'a> {
    inputs: Inputs<'a>,
    operator: CustomOperator,
    shapes: Vec<Vec<usize>>,
}

#[derive(Debug, Clone)]
enum Inputs<'a> {
    Linear { x: &'a [f32], weight: PackedWeight<'a> },
    ExpertLinear { x: &'a [f32], top_k: TopK<'a>, weight: PackedWeight<'a> },
    ExpertLinearSum { x: &'a [f32], top_k: TopK<'a>, gates: &'a [f32], weight: PackedWeight<'a> },
    ExpertMlp { x: &'a [f32], top_k: TopK<'a>, gates: &'a [f32], mlp: Mlp<'a> },
    Embedding { ids: &'a [i64], weight: PackedWeight<'a> },
    RmsNorm { x: &'a [f32], weight: &'a [f32], epsilon: f32 },
    Router { x: &'a [f32], weight: &'a [f32], width: usize, k: usize },
}

impl BoundOperator<'_> {
    /// Element types and shapes of the results.
    pub fn results(&self) -> impl ExactSizeIterator<Item = (ElementType, &[usize])> {
        self.operator.schema().results().iter().copied().zip(self.shapes.iter().map(Vec::as_slice))
    }

    /// Requests what [`BoundOperator::compute`] reads of the weights.
    pub fn prefetch(&self, prefetch: &Prefetch, threads: &dyn Threads) {
        prefetch.request(threads, self.reads());
    }

    fn reads(&self) -> Reads {
        match self.inputs {
            Inputs::Linear { weight, .. } => Reads::matrices(&weight, &[0]),
            Inputs::ExpertLinear { top_k, weight, .. } | Inputs::ExpertLinearSum { top_k, weight, .. } => {
                Reads::matrices(&weight, top_k.experts)
            }
            Inputs::ExpertMlp { top_k, mlp, .. } => {
                let first = Reads::matrices(&mlp.gate_and_up, top_k.experts);
                first.followed_by(Reads::matrices(&mlp.down, top_k.experts))
            }
            Inputs::Embedding { ids, weight } => Reads::rows(&weight, ids),
            // small weights, which stay in memory
            Inputs::RmsNorm { .. } | Inputs::Router { .. } => Reads::default(),
        }
    }

    /// Computes the results, row-major.
    ///
    /// # Errors
    /// [`Error::Kernels`] for a result of another size, or an expert or id that is out of range; [`Error::Operator`] for memory
    /// of other element types.
    pub fn compute(&self, context: ExecContext<'_>, results: &mut [ElementsMut<'_>]) -> Result<()> {
        use ElementsMut::{Float32, Int64};
        match (&self.inputs, results) {
            (Inputs::Linear { x, weight }, [Float32(y)]) => linear(context, x, weight, y)?,
            (Inputs::ExpertLinear { x, top_k, weight }, [Float32(y)]) => {
                expert_linear(context, x, *top_k, weight, y)?;
            }
            (Inputs::ExpertLinearSum { x, top_k, gates, weight }, [Float32(y)]) => {
                expert_linear_sum(context, x, *top_k, gates, weight, y)?;
            }
            (Inputs::ExpertMlp { x, top_k, gates, mlp }, [Float32(y)]) => {
                expert_mlp(context, x, *top_k, gates, mlp, y)?;
            }
            (Inputs::Embedding { ids, weight }, [Float32(y)]) => gather_rows(ids, weight, y)?,
            (Inputs::RmsNorm { x, weight, epsilon }, [Float32(y)]) => {
                rms_norm(context, x, weight, *epsilon, y)?;
            }
            (Inputs::Router { x, weight, width, k }, [Float32(logits), Int64(experts), Float32(gates)]) => {
                route(context, x, weight, *width, *k, Routing { logits, experts, gates })?;
            }
            (_, results) => {
                let problem = format!("memory for {} results does not fit its results", results.len());
                return Err(Error::Operator { operator: self.operator.to_string(), problem });
            }
        }
        Ok(())
    }
}
