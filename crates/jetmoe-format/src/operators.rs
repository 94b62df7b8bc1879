//! The custom operators, ONNX domain `jetmoe`: products with packed weights, attention, norms and routers.
//!
//! [`CustomOperator::schema`] is the only definition of the order of operands. The exporter writes nodes by it, the
//! backends register and read operators by it, and verification finds weights by it.

use std::str::FromStr;

use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use crate::packed::{BLOCK_INPUTS, PackedLayout};
use crate::{ElementType, Error, Result, TensorRole};

/// Domain of the custom operators.
pub const DOMAIN: &str = "jetmoe";

/// Numbers of a listed sequence, see [`Operand::Sequences`].
pub const SEQUENCE_NUMBERS: usize = 3;

/// The custom operators. Their names are in released artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumString, IntoStaticStr, VariantArray)]
pub enum CustomOperator {
    /// x `[rows, inputs]` times one matrix: `[rows, outputs]`.
    Linear,
    /// x `[tokens, inputs]` times the matrices of the experts of each token, `[tokens, k]`:
    /// `[tokens * k, outputs]`.
    ExpertLinear,
    /// x `[tokens * k, inputs]`, a row per selected expert, times their matrices, gated and summed per token:
    /// `[tokens, outputs]`.
    ExpertLinearSum,
    /// A mixture of gated MLPs over x `[tokens, hidden]`: `[tokens, hidden]`.
    ExpertMlp,
    /// Rows of a matrix at ids of any shape: `[...ids, inputs]`.
    #[strum(serialize = "LookUp")]
    Embedding,
    /// Causal softmax attention over a key/value cache, which it updates. Rotates the queries `[tokens * k, width]` and the new
    /// keys, and writes new keys and values, `[tokens, 2 * width]`, behind the cached ones. Results: `[tokens * k, width]`, and
    /// both parts of the cache, which may be the same buffers as the operands.
    ///
    /// `width` is `kv_heads * channels`. Query head j of each of the `k` rows of a token attends to key head j.
    Attention,
    /// x `[tokens, hidden]` divided by the root of its mean square, times a weight `[hidden]`: `[tokens, hidden]`.
    RmsNorm,
    /// Which experts each token of x `[tokens, hidden]` selects. Results: the logits of all experts `[tokens, experts]`, the `k`
    /// best experts, best first and the lower of equal ones first, and their gates, a softmax over their logits, `[tokens, k]`
    /// both.
    Router,
}

/// Which weight of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightSlot {
    /// The only one.
    Only,
    /// First matrix of an MLP: gate rows above, up rows below, in [`RowOrder::Halves`](crate::RowOrder::Halves).
    GateAndUp,
    /// Second matrix of an MLP.
    Down,
}

/// An operand of a custom operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Rows of activations.
    X,
    /// Selected experts of each token, `[tokens, k]`.
    Experts,
    /// Gate of each selected expert, `[tokens, k]`.
    Gates,
    /// Row indices.
    Ids,
    /// Query heads, `[tokens * k, kv_heads * channels]`, not rotated.
    Queries,
    /// New keys, not rotated, and values of each token: `[tokens, 2 * kv_heads * channels]`.
    KeysAndValues,
    /// Cosines of each token's rotary angles, `[tokens, channels / 2]`.
    Cos,
    /// Sines of each token's rotary angles, `[tokens, channels / 2]`.
    Sin,
    /// 1 for a token and 0 for padding, `[batch, cached + new]`. A row holds as many cached tokens as its first columns have
    /// ones.
    AttentionMask,
    /// The sequences that have the tokens of a step, one after the other, `[n, 3]`: the sequence's row of the cache, how many
    /// tokens it holds, and how many of the step are its own. A row may come again, to continue what came before. With no rows,
    /// `[0, 3]`, the attention mask says which tokens are whose.
    Sequences,
    /// Cached keys in a [`CacheFormat`](crate::CacheFormat), `[sequences, kv_heads, capacity, row bytes]`, the tokens of a
    /// sequence from place 0 on. The sequences are those of the attention mask, or the cache of listed ones.
    PastKey,
    /// Cached values, as the keys.
    PastValue,
    /// Weight of a norm, `[hidden]`.
    NormWeight,
    /// Weight of a router, `[experts, hidden]`.
    RouterWeight,
    /// Elements of a weight as bytes, `[experts, panels, blocks, bytes of a block]`.
    Codes(WeightSlot),
    /// Scales of a weight, `[experts, panels, groups, 32]`; absent where its format has none.
    Scales(WeightSlot),
    /// Zero points of a weight, `[experts, panels, groups, 32]`; may be absent.
    ZeroPoints(WeightSlot),
}

/// An attribute of a custom operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Columns of the only weight.
    Inputs,
    /// Rows of the only weight.
    Outputs,
    /// Width of the residual stream.
    Hidden,
    /// Width between the matrices of an MLP.
    Intermediate,
    /// Bits of a weight's elements.
    Bits(WeightSlot),
    /// Elements that share a scale; the columns of a block where there are no scales.
    GroupSize(WeightSlot),
    /// Name of the activation.
    Activation,
    /// Number of key heads.
    KvHeads,
    /// Name of the [`CacheFormat`](crate::CacheFormat).
    KvCache,
    /// What is added to the mean square of a norm.
    Epsilon,
    /// Number of experts that a router selects for each token.
    ExpertsPerToken,
}

/// What an attribute of a custom operator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttributeType {
    /// An integer.
    Integer,
    /// A float32.
    Float,
    /// Text.
    Text,
}

impl Operand {
    /// Element type of the operand.
    pub fn element(self) -> ElementType {
        match self {
            Operand::X
            | Operand::Gates
            | Operand::Queries
            | Operand::KeysAndValues
            | Operand::Cos
            | Operand::Sin
            | Operand::NormWeight
            | Operand::RouterWeight => ElementType::Float32,
            Operand::Experts | Operand::Ids | Operand::AttentionMask | Operand::Sequences => {
                ElementType::Int64
            }
            Operand::Codes(_) | Operand::ZeroPoints(_) | Operand::PastKey | Operand::PastValue => {
                ElementType::UInt8
            }
            Operand::Scales(_) => ElementType::Float16,
        }
    }

    /// Whether it may be absent from the end.
    pub fn is_optional(self) -> bool {
        matches!(self, Operand::Scales(_) | Operand::ZeroPoints(_))
    }

    /// Whether a step updates it: a part of the cache.
    pub fn is_updated(self) -> bool {
        matches!(self, Operand::PastKey | Operand::PastValue)
    }

    /// Which tensor of which packed weight it is; `None` for activations, and for the small weights of norms and routers.
    pub fn tensor(self) -> Option<(WeightSlot, TensorRole)> {
        match self {
            Operand::X
            | Operand::Experts
            | Operand::Gates
            | Operand::Ids
            | Operand::Queries
            | Operand::KeysAndValues
            | Operand::Cos
            | Operand::Sin
            | Operand::AttentionMask
            | Operand::Sequences
            | Operand::PastKey
            | Operand::PastValue
            | Operand::NormWeight
            | Operand::RouterWeight => None,
            Operand::Codes(slot) => Some((slot, TensorRole::Codes)),
            Operand::Scales(slot) => Some((slot, TensorRole::Scales)),
            Operand::ZeroPoints(slot) => Some((slot, TensorRole::ZeroPoints)),
        }
    }
}

impl Attribute {
    /// Its name in ONNX.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Inputs => "inputs",
            Attribute::Outputs => "outputs",
            Attribute::Hidden => "hidden",
            Attribute::Intermediate => "intermediate",
            Attribute::Bits(WeightSlot::Only) => "bits",
            Attribute::Bits(WeightSlot::GateAndUp) => "up_bits",
            Attribute::Bits(WeightSlot::Down) => "down_bits",
            Attribute::GroupSize(WeightSlot::Only) => "group_size",
            Attribute::GroupSize(WeightSlot::GateAndUp) => "up_group_size",
            Attribute::GroupSize(WeightSlot::Down) => "down_group_size",
            Attribute::Activation => "activation",
            Attribute::KvHeads => "kv_heads",
            Attribute::KvCache => "kv_cache",
            Attribute::Epsilon => "epsilon",
            Attribute::ExpertsPerToken => "k",
        }
    }

    /// What it holds.
    pub fn holds(self) -> AttributeType {
        match self {
            Attribute::Activation | Attribute::KvCache => AttributeType::Text,
            Attribute::Epsilon => AttributeType::Float,
            Attribute::Inputs
            | Attribute::Outputs
            | Attribute::Hidden
            | Attribute::Intermediate
            | Attribute::Bits(_)
            | Attribute::GroupSize(_)
            | Attribute::KvHeads
            | Attribute::ExpertsPerToken => AttributeType::Integer,
        }
    }

    /// Its value for weights of these layouts; `None` for one that does not follow from a weight.
    pub fn value(self, layout: impl Fn(WeightSlot) -> Option<PackedLayout>) -> Option<usize> {
        Some(match self {
            Attribute::Inputs => layout(WeightSlot::Only)?.inputs,
            Attribute::Outputs => layout(WeightSlot::Only)?.outputs,
            Attribute::Hidden => layout(WeightSlot::Down)?.outputs,
            Attribute::Intermediate => layout(WeightSlot::Down)?.inputs,
            Attribute::Bits(slot) => layout(slot)?.scheme.format.bits(),
            Attribute::GroupSize(slot) => layout(slot)?.group_size().unwrap_or(BLOCK_INPUTS),
            Attribute::Activation
            | Attribute::KvHeads
            | Attribute::KvCache
            | Attribute::Epsilon
            | Attribute::ExpertsPerToken => return None,
        })
    }
}

/// Operands and attributes of an operator, in their order.
#[derive(Debug, PartialEq, Eq)]
pub struct OperatorSchema {
    /// The operator.
    pub operator: CustomOperator,
    /// The operands; those of packed weights last.
    pub operands: &'static [Operand],
    /// The attributes.
    pub attributes: &'static [Attribute],
}

impl CustomOperator {
    /// Operands and attributes of the operator: the table of all of them.
    pub fn schema(self) -> &'static OperatorSchema {
        use Attribute::{
            Activation, Bits, Epsilon, ExpertsPerToken, GroupSize, Hidden, Inputs, Intermediate, KvCache,
            KvHeads, Outputs,
        };
        use Operand::{
            AttentionMask, Codes, Cos, Experts, Gates, Ids, KeysAndValues, NormWeight, PastKey, PastValue,
            Queries, RouterWeight, Scales, Sequences, Sin, X, ZeroPoints,
        };
        use WeightSlot::{Down, GateAndUp, Only};
        const MATRIX: &[Attribute] = &[Inputs, Outputs, Bits(Only), GroupSize(Only)];
        match self {
            CustomOperator::Linear => &OperatorSchema {
                operator: CustomOperator::Linear,
                operands: &[X, Codes(Only), Scales(Only), ZeroPoints(Only)],
                attributes: MATRIX,
            },
            CustomOperator::ExpertLinear => &OperatorSchema {
                operator: CustomOperator::ExpertLinear,
                operands: &[X, Experts, Codes(Only), Scales(Only), ZeroPoints(Only)],
                attributes: MATRIX,
            },
            CustomOperator::ExpertLinearSum => &OperatorSchema {
                operator: CustomOperator::ExpertLinearSum,
                operands: &[X, Experts, Gates, Codes(Only), Scales(Only), ZeroPoints(Only)],
                attributes: MATRIX,
            },
            #[rustfmt::skip]
            CustomOperator::ExpertMlp => &OperatorSchema {
                operator: CustomOperator::ExpertMlp,
                operands: &[
                    X, Experts, Gates,
                    Codes(GateAndUp), Codes(Down),
                    Scales(GateAndUp), Scales(Down),
                    ZeroPoints(GateAndUp), ZeroPoints(Down),
                ],
                attributes: &[
                    Hidden, Intermediate,
                    Bits(GateAndUp), Bits(Down),
                    GroupSize(GateAndUp), GroupSize(Down),
                    Activation,
                ],
            },
            CustomOperator::Embedding => &OperatorSchema {
                operator: CustomOperator::Embedding,
                operands: &[Ids, Codes(Only), Scales(Only), ZeroPoints(Only)],
                attributes: MATRIX,
            },
            CustomOperator::Attention => &OperatorSchema {
                operator: CustomOperator::Attention,
                operands: &[Queries, KeysAndValues, Cos, Sin, AttentionMask, Sequences, PastKey, PastValue],
                attributes: &[KvHeads, KvCache],
            },
            CustomOperator::RmsNorm => &OperatorSchema {
                operator: CustomOperator::RmsNorm,
                operands: &[X, NormWeight],
                attributes: &[Epsilon],
            },
            CustomOperator::Router => &OperatorSchema {
                operator: CustomOperator::Router,
                operands: &[X, RouterWeight],
                attributes: &[ExpertsPerToken],
            },
        }
    }

    /// Its name in ONNX.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl OperatorSchema {
    /// Every custom operator.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        CustomOperator::VARIANTS.iter().map(|operator| operator.schema())
    }

    /// The schema of an ONNX operator of the domain [`DOMAIN`].
    ///
    /// # Errors
    /// [`Error::UnknownOperator`]
    pub fn named(name: &str) -> Result<&'static Self> {
        let operator = CustomOperator::from_str(name);
        operator.map(CustomOperator::schema).map_err(|_| Error::UnknownOperator { name: name.to_owned() })
    }

    /// Whether it updates a cache.
    pub fn updates_cache(&self) -> bool {
        self.operands.iter().any(|operand| operand.is_updated())
    }

    /// Element types of the results: of [`CustomOperator::Attention`] with both parts of the cache.
    pub fn results(&self) -> &'static [ElementType] {
        match self.operator {
            CustomOperator::Attention => &[ElementType::Float32, ElementType::UInt8, ElementType::UInt8],
            CustomOperator::Router => &[ElementType::Float32, ElementType::Int64, ElementType::Float32],
            _ => &[ElementType::Float32],
        }
    }

    /// Which packed weights it reads, in the order of their codes.
    pub fn weights(&self) -> impl Iterator<Item = WeightSlot> {
        self.operands.iter().filter_map(|operand| match operand.tensor() {
            Some((slot, TensorRole::Codes)) => Some(slot),
            _ => None,
        })
    }

    /// The operand of this name among those of a node; `None` where the node has none.
    pub fn find<'a, T>(&self, operands: &'a [T], wanted: Operand) -> Option<&'a T> {
        operands.get(self.operands.iter().position(|operand| *operand == wanted)?)
    }
}
