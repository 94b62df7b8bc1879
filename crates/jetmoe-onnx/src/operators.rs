//! The operators of exported graphs: the table that a graph is checked by. A test of `jetmoe-graph` compares it with the
//! graphs of every profile.

use std::fmt;

use jetmoe_artifact::Profile;
use jetmoe_format::{Attribute as CustomAttribute, AttributeType, DOMAIN, Operand, OperatorSchema};

/// Domain of ONNX Runtime's contrib operators.
pub const MICROSOFT: &str = "com.microsoft";

/// What an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeKind {
    /// An integer.
    Integer,
    /// A float32.
    Float,
    /// Text.
    Text,
    /// A list of integers.
    Integers,
    /// A tensor.
    Tensor,
}

/// An operator as exported graphs have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedOperator {
    /// Its domain; empty for the standard one.
    pub domain: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The smallest number of operands.
    pub least_operands: usize,
    /// The largest number of operands; `None` for any.
    pub most_operands: Option<usize>,
    /// The number of results.
    pub results: usize,
    /// Its attributes. Every node has all of them.
    pub attributes: Vec<(&'static str, AttributeKind)>,
}

impl ExportedOperator {
    /// Every operator.
    pub fn all() -> Vec<Self> {
        let rows = [("", STANDARD), (MICROSOFT, CONTRIB)];
        let written = rows.into_iter().flat_map(|(domain, rows)| {
            rows.iter().map(move |(name, (least_operands, most_operands), results, attributes)| Self {
                domain,
                name: *name,
                least_operands: *least_operands,
                most_operands: Some(*most_operands).filter(|most| *most != ANY),
                results: *results,
                attributes: attributes.to_vec(),
            })
        });
        written.chain(OperatorSchema::all().map(Self::custom)).collect()
    }

    fn custom(schema: &'static OperatorSchema) -> Self {
        let required = schema.operands.iter().filter(|operand: &&Operand| !operand.is_optional());
        let kind = |attribute: &CustomAttribute| match attribute.holds() {
            AttributeType::Integer => AttributeKind::Integer,
            AttributeType::Float => AttributeKind::Float,
            AttributeType::Text => AttributeKind::Text,
        };
        Self {
            domain: DOMAIN,
            name: schema.operator.name(),
            least_operands: required.count(),
            most_operands: Some(schema.operands.len()),
            results: schema.results().len(),
            attributes: schema
                .attributes
                .iter()
                .map(|attribute| (attribute.name(), kind(attribute)))
                .collect(),
        }
    }

    /// Whether graphs of a profile may have it.
    pub fn is_in(&self, profile: Profile) -> bool {
        match self.domain {
            "" => true,
            MICROSOFT => profile.uses_onnx_runtime(),
            _ => profile == Profile::Native,
        }
    }
}

impl fmt::Display for AttributeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttributeKind::Integer => "an integer",
            AttributeKind::Float => "a float",
            AttributeKind::Text => "text",
            AttributeKind::Integers => "a list of integers",
            AttributeKind::Tensor => "a tensor",
        })
    }
}

/// Name, least and most operands, results, attributes.
type Row = (&'static str, (usize, usize), usize, &'static [(&'static str, AttributeKind)]);

/// Any number of operands.
const ANY: usize = usize::MAX;

const AXIS: &[(&str, AttributeKind)] = &[("axis", AttributeKind::Integer)];
const KEEPDIMS: &[(&str, AttributeKind)] = &[("keepdims", AttributeKind::Integer)];

/// <https://onnx.ai/onnx/operators/>
#[rustfmt::skip]
const STANDARD: &[Row] = &[
    ("Add", (2, 2), 1, &[]),
    ("And", (2, 2), 1, &[]),
    ("Cast", (1, 1), 1, &[("to", AttributeKind::Integer)]),
    ("Concat", (1, ANY), 1, AXIS),
    ("ConstantOfShape", (1, 1), 1, &[("value", AttributeKind::Tensor)]),
    ("Cos", (1, 1), 1, &[]),
    ("CumSum", (2, 2), 1, &[]),
    ("DequantizeLinear", (2, 3), 1, &[("axis", AttributeKind::Integer), ("block_size", AttributeKind::Integer)]),
    ("Div", (2, 2), 1, &[]),
    ("Equal", (2, 2), 1, &[]),
    ("Erf", (1, 1), 1, &[]),
    ("Gather", (2, 2), 1, AXIS),
    ("Gemm", (2, 2), 1, &[("transB", AttributeKind::Integer)]),
    ("LessOrEqual", (2, 2), 1, &[]),
    ("MatMul", (2, 2), 1, &[]),
    ("Max", (2, 2), 1, &[]),
    ("Min", (2, 2), 1, &[]),
    ("Mul", (2, 2), 1, &[]),
    ("Neg", (1, 1), 1, &[]),
    ("NonZero", (1, 1), 1, &[]),
    ("Not", (1, 1), 1, &[]),
    ("Pow", (2, 2), 1, &[]),
    ("Range", (3, 3), 1, &[]),
    ("ReduceMax", (2, 2), 1, KEEPDIMS),
    ("ReduceMean", (2, 2), 1, KEEPDIMS),
    ("ReduceSum", (2, 2), 1, KEEPDIMS),
    ("Relu", (1, 1), 1, &[]),
    ("Reshape", (2, 2), 1, &[]),
    ("ScatterND", (3, 3), 1, &[]),
    ("Shape", (1, 1), 1, &[("start", AttributeKind::Integer), ("end", AttributeKind::Integer)]),
    ("Sigmoid", (1, 1), 1, &[]),
    ("Sin", (1, 1), 1, &[]),
    ("Slice", (4, 4), 1, &[]),
    ("Softmax", (1, 1), 1, AXIS),
    ("Split", (2, 2), 2, AXIS),
    ("Sqrt", (1, 1), 1, &[]),
    ("Squeeze", (2, 2), 1, &[]),
    ("Sub", (2, 2), 1, &[]),
    ("Tanh", (1, 1), 1, &[]),
    ("TopK", (2, 2), 2, AXIS),
    ("Transpose", (1, 1), 1, &[("perm", AttributeKind::Integers)]),
    ("Unsqueeze", (2, 2), 1, &[]),
    ("Where", (3, 3), 1, &[]),
];

/// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
#[rustfmt::skip]
const CONTRIB: &[Row] = &[
    ("FusedMatMul", (2, 2), 1, &[("transB", AttributeKind::Integer)]),
    ("GatherBlockQuantized", (3, 4), 1, &[
        ("bits", AttributeKind::Integer), ("block_size", AttributeKind::Integer),
        ("gather_axis", AttributeKind::Integer), ("quantize_axis", AttributeKind::Integer),
    ]),
    ("GroupQueryAttention", (7, 7), 3, &[
        ("num_heads", AttributeKind::Integer), ("kv_num_heads", AttributeKind::Integer), ("scale", AttributeKind::Float),
    ]),
    ("MatMulNBits", (3, 4), 1, &[
        ("K", AttributeKind::Integer), ("N", AttributeKind::Integer), ("bits", AttributeKind::Integer),
        ("block_size", AttributeKind::Integer), ("accuracy_level", AttributeKind::Integer),
    ]),
    ("RotaryEmbedding", (4, 4), 1, &[("interleaved", AttributeKind::Integer)]),
];
