//! The formats that weights are stored in. A new format is a variant here.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};

use crate::{ElementType, Error, Result, UnknownName, named};

/// How the elements of a weight are stored.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<WeightFormat>)]
pub enum WeightFormat {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers, and a scale per group.
    Int8,
    /// 4-bit integers, and a scale per group.
    Int4,
}

named!(WeightFormat, "storage");

impl WeightFormat {
    /// Width of an element in bits.
    pub const fn bits(self) -> usize {
        match self {
            WeightFormat::F32 => 32,
            WeightFormat::F16 | WeightFormat::Bf16 => 16,
            WeightFormat::Int8 => 8,
            WeightFormat::Int4 => 4,
        }
    }

    /// Whether the elements are integers with scales.
    pub const fn is_quantized(self) -> bool {
        matches!(self, WeightFormat::Int8 | WeightFormat::Int4)
    }

    /// Whether the custom operators have kernels for it.
    pub const fn is_packable(self) -> bool {
        matches!(self, WeightFormat::Bf16 | WeightFormat::Int8 | WeightFormat::Int4)
    }

    /// The packable format of a width.
    ///
    /// # Errors
    /// [`Error::Bits`] for a width that no kernel reads.
    pub fn packable(bits: i64) -> Result<Self> {
        let found = |format: &&Self| format.is_packable() && format.bits() as i64 == bits;
        Self::ALL.iter().find(found).copied().ok_or(Error::Bits { found: bits })
    }

    /// The format of floating-point elements.
    pub fn of_floats(element: ElementType) -> Self {
        match element {
            ElementType::Float16 => WeightFormat::F16,
            ElementType::BFloat16 => WeightFormat::Bf16,
            _ => WeightFormat::F32,
        }
    }

    /// Element type of a format that is not quantized.
    pub fn float_element(self) -> Option<ElementType> {
        match self {
            WeightFormat::F32 => Some(ElementType::Float32),
            WeightFormat::F16 => Some(ElementType::Float16),
            WeightFormat::Bf16 => Some(ElementType::BFloat16),
            WeightFormat::Int8 | WeightFormat::Int4 => None,
        }
    }

    /// The quantized format of codes of this type.
    pub fn of_codes(element: ElementType) -> Option<Self> {
        match element {
            ElementType::Int4 | ElementType::UInt4 => Some(WeightFormat::Int4),
            ElementType::Int8 | ElementType::UInt8 => Some(WeightFormat::Int8),
            _ => None,
        }
    }

    /// Element type of codes, as `DequantizeLinear` reads them.
    pub(crate) fn code_element(self, signed: bool) -> ElementType {
        match (self.bits(), signed) {
            (4, true) => ElementType::Int4,
            (4, false) => ElementType::UInt4,
            (_, true) => ElementType::Int8,
            (_, false) => ElementType::UInt8,
        }
    }

    /// The type that a product with activations of type `activations` is computed in: float32 for float32 and bfloat16
    /// weights, the activations' type for all others.
    pub fn arithmetic(self, activations: ElementType) -> ElementType {
        match self {
            WeightFormat::F32 | WeightFormat::Bf16 => ElementType::Float32,
            WeightFormat::F16 | WeightFormat::Int8 | WeightFormat::Int4 => activations,
        }
    }

    /// The unsigned code of zero if groups have no zero points: the middle of the range.
    pub const fn default_zero_point(self) -> u8 {
        match self {
            WeightFormat::Int8 => 128,
            WeightFormat::Int4 => 8,
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => 0,
        }
    }

    /// Packs codes, one per byte, as ONNX stores them: two 4-bit codes per byte, the first in the low half. Only the low
    /// half of a 4-bit code is used; the last byte of an odd number of codes is padded with zeros.
    pub fn pack(self, codes: &[u8]) -> Vec<u8> {
        if self.bits() != 4 {
            return codes.to_vec();
        }
        let mut packed = Vec::with_capacity(codes.len().div_ceil(2));
        let (pairs, rest) = codes.as_chunks::<2>();
        packed.extend(pairs.iter().map(|[low, high]| (low & 0xF) | (high << 4)));
        packed.extend(rest.iter().map(|low| low & 0xF));
        packed
    }

    /// Unpacks the first `count` codes, one per byte, unsigned.
    pub fn unpack(self, packed: &[u8], count: usize) -> Vec<u8> {
        match self.bits() {
            4 => packed.iter().flat_map(|byte| [byte & 0xF, byte >> 4]).take(count).collect(),
            _ => packed.iter().copied().take(count).collect(),
        }
    }
}
