use std::fmt;

use crate::onnx;

/// Element type of a value in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point with a long fraction.
    Float16,
    /// 16-bit floating point with a long exponent; only stored, never computed with.
    BFloat16,
    /// 64-bit signed integers: ids, indices, sizes.
    Int64,
    /// 32-bit signed integers: lengths, where an operator of ONNX Runtime wants them so.
    Int32,
    /// 8-bit signed integers: codes of quantized weights.
    Int8,
    /// 8-bit unsigned integers: codes, and bytes that hold two 4-bit ones.
    UInt8,
    /// 4-bit signed integers, two a byte: codes of quantized weights.
    Int4,
    /// 4-bit unsigned integers, two a byte.
    UInt4,
    /// Truth values.
    Bool,
}

impl ElementType {
    /// The number of ONNX's `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        let element = match self {
            ElementType::Float32 => onnx::DataType::Float,
            ElementType::Float16 => onnx::DataType::Float16,
            ElementType::BFloat16 => onnx::DataType::Bfloat16,
            ElementType::Int64 => onnx::DataType::Int64,
            ElementType::Int32 => onnx::DataType::Int32,
            ElementType::Int8 => onnx::DataType::Int8,
            ElementType::UInt8 => onnx::DataType::Uint8,
            ElementType::Int4 => onnx::DataType::Int4,
            ElementType::UInt4 => onnx::DataType::Uint4,
            ElementType::Bool => onnx::DataType::Bool,
        };
        element as i32
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

    /// Whether arithmetic with fractions is done in it.
    pub fn is_float(self) -> bool {
        matches!(self, ElementType::Float32 | ElementType::Float16)
    }
}

impl From<jetmoe_artifact::ElementType> for ElementType {
    fn from(element: jetmoe_artifact::ElementType) -> Self {
        match element {
            jetmoe_artifact::ElementType::Int64 => ElementType::Int64,
            jetmoe_artifact::ElementType::Float32 => ElementType::Float32,
            jetmoe_artifact::ElementType::Float16 => ElementType::Float16,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ElementType::Float32 => "float32",
            ElementType::Float16 => "float16",
            ElementType::BFloat16 => "bfloat16",
            ElementType::Int64 => "int64",
            ElementType::Int32 => "int32",
            ElementType::Int8 => "int8",
            ElementType::UInt8 => "uint8",
            ElementType::Int4 => "int4",
            ElementType::UInt4 => "uint4",
            ElementType::Bool => "bool",
        })
    }
}
