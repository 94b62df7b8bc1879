//! Our own operators, of the domain `jetmoe`: products with weights in panels, as `jetmoe-kernels` defines them.
//!
//! Each takes the codes of a weight behind its other operands, then its scales and its zero points where there are any;
//! [`Builder::expert_mlp`] those of two weights, by kind.

use jetmoe_artifact::names::operators::{EXPERT_LINEAR, EXPERT_LINEAR_SUM, EXPERT_MLP, LINEAR, LOOK_UP};
use jetmoe_artifact::{ModelPart, Profile, WeightStorage};
use jetmoe_kernels::{Activation, Element, Layout, RowOrder};

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::panels::Panels;
use crate::weight::Encoding;
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// Our own operators.
pub(super) const OPERATORS: &[&str] = &[LINEAR, EXPERT_LINEAR, EXPERT_LINEAR_SUM, EXPERT_MLP, LOOK_UP];

/// How our own operators read the weights of a part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnStorage {
    element: Element,
    zero_points: bool,
}

/// A weight in panels, and the values of its parts.
#[derive(Debug, Clone)]
pub(crate) struct Paneled {
    layout: Layout,
    /// Codes, and scales and zero points where there are any.
    parts: Vec<Value>,
}

/// What tokens chose: experts `[tokens, k]` and the weight of each, `[tokens, k]`.
type Choices<'a> = (&'a Value, &'a Value);

impl Builder {
    /// How a part's weights are read by our own operators. `None` where standard ones multiply: in other profiles, and
    /// for a part that is kept in a type which ours do not read.
    pub(crate) fn own_storage(&self, part: ModelPart, layer: Option<usize>) -> Result<Option<OwnStorage>> {
        let storage = self.storage(part, layer);
        let bits = match (self.profile(), storage.weights) {
            (Profile::Portable | Profile::OnnxRuntime, _) => return Ok(None),
            (Profile::Native, WeightStorage::F32 | WeightStorage::F16) => return Ok(None),
            (Profile::Native, WeightStorage::Bf16) => 16,
            (Profile::Native, WeightStorage::Int8) => 8,
            (Profile::Native, WeightStorage::Int4) => 4,
        };
        let element = Element::new(bits, storage.group_size as i64)?;
        Ok(Some(OwnStorage { element, zero_points: storage.zero_points }))
    }

    /// A weight of the checkpoint, one matrix `[outputs, inputs]` or `[experts, outputs, inputs]`, in panels.
    pub(crate) fn paneled(&mut self, weight: Weight, storage: OwnStorage, order: RowOrder) -> Paneled {
        let OwnStorage { element, zero_points } = storage;
        let panels = Panels::new(&weight.stored, element, order, zero_points);
        Paneled { layout: panels.layout, parts: self.weight(&weight.encoded(Encoding::Panels(panels))) }
    }

    /// `x · weightᵀ` for a weight `[outputs, inputs]` of a part, by the operator that the profile has for it:
    /// `[tokens, outputs]`, in the type of `x`.
    pub(crate) fn linear_of_part(
        &mut self,
        x: &Value,
        weight: Weight,
        part: ModelPart,
        layer: Option<usize>,
    ) -> Result<Value> {
        match self.own_storage(part, layer)? {
            Some(storage) => {
                let weight = self.paneled(weight, storage, RowOrder::AsStored);
                self.paneled_linear(x, &weight)
            }
            None => self.linear(x, weight, self.storage(part, layer)),
        }
    }

    /// `x · weightᵀ` for rows `[rows, inputs]`: `[rows, outputs]`.
    pub(crate) fn paneled_linear(&mut self, x: &Value, weight: &Paneled) -> Result<Value> {
        let rows = self.rows(LINEAR, x, weight.layout.inputs)?;
        let shape = Shape(vec![rows, weight.layout.outputs.into()]);
        Ok(self.own_node(LINEAR, &[x], weight, shape))
    }

    /// Each token `[tokens, inputs]` times the matrices of the experts that it chose, `[tokens, k]`: a row for each slot,
    /// `[tokens * k, outputs]`.
    pub(crate) fn expert_linear(&mut self, x: &Value, experts: &Value, weight: &Paneled) -> Result<Value> {
        self.rows(EXPERT_LINEAR, x, weight.layout.inputs)?;
        self.require_element(EXPERT_LINEAR, &[experts], ElementType::Int64)?;
        let shape = Shape(vec![experts.shape.elements(), weight.layout.outputs.into()]);
        Ok(self.own_node(EXPERT_LINEAR, &[x, experts], weight, shape))
    }

    /// The row of each slot, `[tokens * k, inputs]`, times its expert's matrix, gated and summed per token: `[tokens,
    /// outputs]`.
    pub(crate) fn expert_linear_sum(
        &mut self,
        x: &Value,
        (experts, gates): Choices<'_>,
        weight: &Paneled,
    ) -> Result<Value> {
        let slots = self.rows(EXPERT_LINEAR_SUM, x, weight.layout.inputs)?;
        self.require_choices(EXPERT_LINEAR_SUM, (experts, gates))?;
        if slots != experts.shape.elements() {
            return self.refuse(EXPERT_LINEAR_SUM, &[x, experts], "every slot needs one row");
        }
        let shape = Shape(vec![experts.dimension(0).clone(), weight.layout.outputs.into()]);
        Ok(self.own_node(EXPERT_LINEAR_SUM, &[x, experts, gates], weight, shape))
    }

    /// Gated MLPs of the experts that each token `[tokens, hidden]` chose, gated and summed: `[tokens, hidden]`. `up` has
    /// its gates above, in halves.
    pub(crate) fn expert_mlp(
        &mut self,
        x: &Value,
        (experts, gates): Choices<'_>,
        (up, down): (&Paneled, &Paneled),
        activation: Activation,
    ) -> Result<Value> {
        let tokens = self.rows(EXPERT_MLP, x, up.layout.inputs)?;
        self.require_choices(EXPERT_MLP, (experts, gates))?;
        let (hidden, intermediate) = (down.layout.outputs, down.layout.inputs);
        if (up.layout.inputs, up.layout.outputs) != (hidden, 2 * intermediate) {
            return self.refuse(EXPERT_MLP, &[x], "the two weights do not fit together");
        }
        let attributes = vec![
            ("hidden", integer(hidden)),
            ("intermediate", integer(intermediate)),
            ("up_bits", integer(up.layout.element.bits())),
            ("down_bits", integer(down.layout.element.bits())),
            ("up_group_size", group_size(&up.layout)),
            ("down_group_size", group_size(&down.layout)),
            ("activation", Attribute::Text(activation.name())),
        ];
        let weights = up.parts.iter().zip(&down.parts).flat_map(|(up, down)| [up, down]);
        let operands: Vec<&Value> = [x, experts, gates].into_iter().chain(weights).collect();
        Ok(self.node(
            EXPERT_MLP,
            &operands,
            attributes,
            ElementType::Float32,
            Shape(vec![tokens, hidden.into()]),
        ))
    }

    /// Rows of a matrix at `ids`, restored: `[...ids, inputs]`.
    pub(crate) fn paneled_look_up(&mut self, ids: &Value, weight: &Paneled) -> Result<Value> {
        self.require_element(LOOK_UP, &[ids], ElementType::Int64)?;
        let row = Dimension::from(weight.layout.inputs);
        let shape = Shape(ids.shape.0.iter().cloned().chain([row]).collect());
        Ok(self.own_node(LOOK_UP, &[ids], weight, shape))
    }

    /// The number of rows of a float32 matrix with so many columns.
    fn rows(&self, operator: &'static str, x: &Value, inputs: usize) -> Result<Dimension> {
        self.require_element(operator, &[x], ElementType::Float32)?;
        match x.shape.0.as_slice() {
            [rows, columns] if columns.fixed() == Some(inputs as i64) => Ok(rows.clone()),
            _ => self.refuse(operator, &[x], format!("must be a matrix with {inputs} columns")),
        }
    }

    fn require_choices(&self, operator: &'static str, (experts, gates): Choices<'_>) -> Result<()> {
        self.require_element(operator, &[experts], ElementType::Int64)?;
        self.require_element(operator, &[gates], ElementType::Float32)?;
        if experts.shape == gates.shape && experts.shape.rank() == 2 {
            Ok(())
        } else {
            self.refuse(operator, &[experts, gates], "every expert that was chosen needs one gate")
        }
    }

    /// A node that reads one weight.
    fn own_node(
        &mut self,
        operator: &'static str,
        operands: &[&Value],
        weight: &Paneled,
        shape: Shape,
    ) -> Value {
        let layout = &weight.layout;
        let attributes = vec![
            ("inputs", integer(layout.inputs)),
            ("outputs", integer(layout.outputs)),
            ("bits", integer(layout.element.bits())),
            ("group_size", group_size(layout)),
        ];
        let operands: Vec<&Value> = operands.iter().copied().chain(&weight.parts).collect();
        self.node(operator, &operands, attributes, ElementType::Float32, shape)
    }
}

fn integer(number: usize) -> Attribute {
    Attribute::Integer(number as i64)
}

/// Weights that share a scale; the columns of a block where there are no scales.
fn group_size(layout: &Layout) -> Attribute {
    integer(layout.element.group_size().map_or(jetmoe_kernels::BLOCK_INPUTS, |size| size.weights()))
}
