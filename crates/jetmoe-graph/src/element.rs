use std::fmt;

use crate::onnx;

/// Element type of a value in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 32-bit floating point.
    Float32,
    /// 64-bit signed integers: ids, indices, sizes.
    Int64,
    /// Truth values.
    Bool,
}

impl ElementType {
    /// The number of ONNX's `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        match self {
            ElementType::Float32 => onnx::DataType::Float as i32,
            ElementType::Int64 => onnx::DataType::Int64 as i32,
            ElementType::Bool => onnx::DataType::Bool as i32,
        }
    }

    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            ElementType::Float32 => 4,
            ElementType::Int64 => 8,
            ElementType::Bool => 1,
        }
    }
}

impl From<jetmoe_artifact::ElementType> for ElementType {
    fn from(element: jetmoe_artifact::ElementType) -> Self {
        match element {
            jetmoe_artifact::ElementType::Int64 => ElementType::Int64,
            jetmoe_artifact::ElementType::Float32 => ElementType::Float32,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ElementType::Float32 => "float32",
            ElementType::Int64 => "int64",
            ElementType::Bool => "bool",
        })
    }
}
