//! Element types of ONNX tensors.

use half::{bf16, f16};
use strum::{Display, FromRepr};

/// Element type of a tensor. As a number it is ONNX's `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromRepr)]
#[strum(serialize_all = "lowercase")]
#[repr(i32)]
pub enum ElementType {
    /// 32-bit floating point.
    Float32 = 1,
    /// 8-bit unsigned integers: codes, and bytes that hold two 4-bit ones.
    UInt8 = 2,
    /// 8-bit signed integers: codes of quantized weights.
    Int8 = 3,
    /// 32-bit signed integers: lengths for operators of ONNX Runtime that require them.
    Int32 = 6,
    /// 64-bit signed integers: ids, indices, sizes.
    Int64 = 7,
    /// Truth values.
    Bool = 9,
    /// IEEE half precision.
    Float16 = 10,
    /// bfloat16; only stored, never computed with.
    BFloat16 = 16,
    /// 4-bit unsigned integers, two per byte.
    UInt4 = 21,
    /// 4-bit signed integers, two per byte: codes of quantized weights.
    Int4 = 22,
}

impl ElementType {
    /// The type with this number in ONNX's `TensorProto.DataType`; `None` for a type that no exported graph has.
    pub fn from_onnx(number: i32) -> Option<Self> {
        Self::from_repr(number)
    }

    /// Size of `count` elements in bytes, as ONNX stores them.
    pub fn bytes(self, count: u64) -> u64 {
        match self {
            ElementType::Int64 => 8 * count,
            ElementType::Float32 | ElementType::Int32 => 4 * count,
            ElementType::Float16 | ElementType::BFloat16 => 2 * count,
            ElementType::Int8 | ElementType::UInt8 | ElementType::Bool => count,
            ElementType::Int4 | ElementType::UInt4 => count.div_ceil(2),
        }
    }

    /// Whether graphs compute floating-point arithmetic in it.
    pub fn is_float(self) -> bool {
        matches!(self, ElementType::Float32 | ElementType::Float16)
    }

    /// Encodes values as little-endian elements of a 16-bit type; any other type is written as float32.
    ///
    /// # Errors
    /// The index of the first finite value that would become infinite.
    pub fn encode(self, values: &[f32]) -> Result<Vec<u8>, usize> {
        match self {
            ElementType::Float16 => encode_each(values, f16::from_f32, f16::is_finite, f16::to_le_bytes),
            ElementType::BFloat16 => encode_each(values, bf16::from_f32, bf16::is_finite, bf16::to_le_bytes),
            _ => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        }
    }

    /// The values of little-endian floating-point elements; `None` for another type.
    pub fn decode_floats(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let (words, pairs) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<2>().0);
        match self {
            ElementType::Float32 => Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect()),
            ElementType::Float16 => {
                Some(pairs.iter().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect())
            }
            ElementType::BFloat16 => {
                Some(pairs.iter().map(|pair| bf16::from_le_bytes(*pair).to_f32()).collect())
            }
            _ => None,
        }
    }

    /// The values of 4-bit or 8-bit integers; `None` for another type. The first of two 4-bit codes is in the low half of
    /// a byte; an odd number of codes yields one extra value, to be ignored.
    pub fn decode_codes(self, bytes: &[u8]) -> Option<Vec<i16>> {
        let halves = || bytes.iter().flat_map(|byte| [i16::from(byte & 0xF), i16::from(byte >> 4)]);
        match self {
            ElementType::Int8 => Some(bytes.iter().map(|byte| i16::from(byte.cast_signed())).collect()),
            ElementType::UInt8 => Some(bytes.iter().map(|byte| i16::from(*byte)).collect()),
            ElementType::Int4 => Some(halves().map(|code| (code ^ 8) - 8).collect()),
            ElementType::UInt4 => Some(halves().collect()),
            _ => None,
        }
    }
}

fn encode_each<T: Copy, const SIZE: usize>(
    values: &[f32],
    convert: impl Fn(f32) -> T,
    is_finite: impl Fn(T) -> bool,
    to_bytes: impl Fn(T) -> [u8; SIZE],
) -> Result<Vec<u8>, usize> {
    let overflows = |value: &f32| !is_finite(convert(*value)) && value.is_finite();
    if let Some(index) = values.iter().position(overflows) {
        return Err(index);
    }
    let mut encoded = Vec::with_capacity(values.len() * SIZE);
    encoded.extend(values.iter().flat_map(|value| to_bytes(convert(*value))));
    Ok(encoded)
}
