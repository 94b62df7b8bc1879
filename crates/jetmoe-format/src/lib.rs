//! How weights are stored, and which custom operators read them.
//!
//! * [`WeightFormat`] is the type of a weight's elements: a floating-point type, or integer codes.
//! * [`Scheme`] defines the meaning of codes: `(code − zero_point) · scale`, with one scale per group of weights.
//! * [`Encoding`] is a scheme with the order in which an operator reads it, and names the tensors that a weight is written
//!   as. Quantized weights have three: along columns for `DequantizeLinear`, along rows for `MatMulNBits`, and in panels
//!   ([`PackedLayout`]) for the custom operators.
//! * [`OperatorSchema`] is the table of the custom operators: operands and attributes, by name.
//! * [`CacheFormat`] says how the operator for attention stores keys and values.
//!
//! Exporter, backends, kernels and verification use these definitions. This crate knows neither models nor files.

mod cache;
mod element;
mod encoding;
mod error;
mod format;
mod names;
mod operator_node;
mod operators;
mod packed;
mod scheme;

pub use cache::CacheFormat;
pub use element::ElementType;
pub use encoding::{Encoding, Grouping, TensorRole, TensorSpec, Tensors};
pub use error::{Error, Result};
pub use format::WeightFormat;
pub use names::{Named, UnknownName};
pub use operator_node::{AttentionHeads, Attributes, Epsilon, OperatorNode};
pub use operators::{
    Attribute, AttributeType, CustomOperator, DOMAIN, Operand, OperatorSchema, SEQUENCE_NUMBERS, WeightSlot,
};
pub use packed::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, PackedWeight, Panel, RowOrder, Scale};
pub use scheme::Scheme;

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
