//! A node of a custom operator: its attributes, read and checked.

use crate::operators::{Attribute, CustomOperator, Operand, OperatorSchema, WeightSlot};
use crate::packed::{PackedLayout, RowOrder};
use crate::{CacheFormat, Error, Result};

/// Attributes of a node, as a backend provides them.
pub trait Attributes {
    /// The integer attribute of this name.
    fn integer(&self, name: &str) -> Option<i64>;
    /// The float attribute of this name.
    fn float(&self, name: &str) -> Option<f32>;
    /// The string attribute of this name.
    fn text(&self, name: &str) -> Option<String>;
}

/// A node of a custom operator, without its operands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperatorNode {
    /// The operator.
    pub operator: CustomOperator,
    /// Layout of every weight that it reads, with one expert; the number of experts follows from the codes.
    weights: Vec<(WeightSlot, PackedLayout)>,
    /// Name of the activation; empty for an operator without one.
    pub activation: String,
    /// The heads of [`CustomOperator::Attention`].
    pub heads: Option<AttentionHeads>,
    /// What [`CustomOperator::RmsNorm`] adds to the mean square.
    pub epsilon: Option<Epsilon>,
    /// How many experts [`CustomOperator::Router`] selects for each token.
    pub experts_per_token: Option<usize>,
}

/// A positive, finite number, so that a node can be compared and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epsilon(u32);

impl Epsilon {
    /// `None` for a number that is not positive and finite.
    pub fn new(value: f32) -> Option<Self> {
        (value > 0.0 && value.is_finite()).then_some(Epsilon(value.to_bits()))
    }

    /// The number.
    pub fn value(self) -> f32 {
        f32::from_bits(self.0)
    }
}

/// The attributes of [`CustomOperator::Attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionHeads {
    /// Number of key heads.
    pub kv_heads: usize,
    /// How the cache stores keys and values.
    pub cache: CacheFormat,
}

impl OperatorNode {
    /// Reads the attributes of a node.
    ///
    /// # Errors
    /// An unknown operator, a missing attribute, or a value that no kernel supports, sizes that do not fit in memory included.
    pub fn read(name: &str, attributes: &dyn Attributes) -> Result<Self> {
        let schema = OperatorSchema::named(name)?;
        let operator = schema.operator;
        let integer = |attribute: Attribute| {
            let missing = Error::MissingAttribute { operator, attribute: attribute.name() };
            attributes.integer(attribute.name()).ok_or(missing)
        };
        let size = |attribute: Attribute| {
            let found = integer(attribute)?;
            let size = usize::try_from(found).ok().filter(|size| *size > 0);
            size.ok_or(Error::Attribute { operator, attribute: attribute.name(), found })
        };
        let layout = |slot| {
            let (outputs, inputs, order) = match slot {
                WeightSlot::Only => (size(Attribute::Outputs)?, size(Attribute::Inputs)?, RowOrder::AsStored),
                WeightSlot::GateAndUp => (
                    size(Attribute::Intermediate)?.saturating_mul(2),
                    size(Attribute::Hidden)?,
                    RowOrder::Halves,
                ),
                WeightSlot::Down => {
                    (size(Attribute::Hidden)?, size(Attribute::Intermediate)?, RowOrder::AsStored)
                }
            };
            let (bits, group_size) = (integer(Attribute::Bits(slot))?, integer(Attribute::GroupSize(slot))?);
            let scheme = PackedLayout::scheme(bits, group_size, false)?;
            let layout = PackedLayout { experts: 1, outputs, inputs, scheme, order };
            layout.check()?;
            Ok((slot, layout))
        };
        let text = |attribute: Attribute| attributes.text(attribute.name()).unwrap_or_default();
        let heads = || {
            let name = text(Attribute::KvCache);
            let cache = CacheFormat::ALL.iter().copied().find(|format| format.name() == name);
            let cache = cache.ok_or(Error::CacheFormat { found: name })?;
            Ok(AttentionHeads { kv_heads: size(Attribute::KvHeads)?, cache })
        };
        let epsilon = || {
            let name = Attribute::Epsilon.name();
            let missing = Error::MissingAttribute { operator, attribute: name };
            let found = attributes.float(name).ok_or(missing)?;
            Epsilon::new(found).ok_or_else(|| Error::Epsilon { operator, found: found.to_string() })
        };
        Ok(OperatorNode {
            operator,
            weights: schema.weights().map(layout).collect::<Result<_>>()?,
            activation: text(Attribute::Activation),
            heads: (operator == CustomOperator::Attention).then(heads).transpose()?,
            epsilon: (operator == CustomOperator::RmsNorm).then(epsilon).transpose()?,
            experts_per_token: (operator == CustomOperator::Router)
                .then(|| size(Attribute::ExpertsPerToken))
                .transpose()?,
        })
    }

    /// Every weight that it reads.
    pub fn weights(&self) -> &[(WeightSlot, PackedLayout)] {
        &self.weights
    }

    /// Layout of a weight that it reads.
    ///
    /// # Errors
    /// [`Error::NoSuchOperand`] for a weight that the operator does not have.
    pub fn layout(&self, slot: WeightSlot) -> Result<PackedLayout> {
        let found = self.weights.iter().find(|(found, _)| *found == slot).map(|(_, layout)| *layout);
        found.ok_or(Error::NoSuchOperand { operator: self.operator, operand: Operand::Codes(slot) })
    }
}
