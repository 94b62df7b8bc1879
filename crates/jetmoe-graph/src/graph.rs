//! A finished graph, as the writer and the text form read it.

use std::fmt;

use half::f16;
use jetmoe_artifact::{Precision, Profile, Task};
use jetmoe_format::{CacheFormat, ElementType};

use crate::{Opset, Shape, Weight};

/// A complete computation graph, its weights still references into a checkpoint.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The task it computes.
    pub task: Task,
    /// Element types of weights and arithmetic.
    pub precision: Precision,
    /// Operators it may use.
    pub profile: Profile,
    /// Version of the standard operator set.
    pub opset: Opset,
    /// How the operator `Attention` stores the key/value cache; `None` for a graph without it.
    pub kv_cache: Option<CacheFormat>,
    pub(crate) values: Vec<ValueFacts>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) weights: Vec<StoredWeight>,
}

/// A weight and the values that its bytes are read as.
#[derive(Debug, Clone)]
pub(crate) struct StoredWeight {
    pub(crate) weight: Weight,
    /// One for each of [`Weight::tensors`].
    pub(crate) tensors: Vec<ValueId>,
    /// Other readings of the same bytes: a value, and the index of the tensor that it reads.
    pub(crate) views: Vec<(ValueId, usize)>,
}

/// Index of a value in [`Graph::values`].
pub(crate) type ValueId = usize;

/// Name, type and shape of a value.
#[derive(Debug, Clone)]
pub(crate) struct ValueFacts {
    pub(crate) name: String,
    pub(crate) element: ElementType,
    pub(crate) shape: Shape,
}

/// One operator with its operands and results.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) operator: Operator,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
}

/// The name of an operator, with its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operator {
    /// The domain; empty for the standard one.
    pub domain: &'static str,
    /// The name.
    pub name: &'static str,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain {
            "" => f.write_str(self.name),
            domain => write!(f, "{domain}.{}", self.name),
        }
    }
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attribute {
    Integer(i64),
    Float(f32),
    Integers(Vec<i64>),
    Text(&'static str),
    /// A tensor that holds a single zero, `[1]`.
    Zero(ElementType),
}

/// A small tensor that is stored in the graph itself.
#[derive(Debug, Clone)]
pub(crate) struct Constant {
    pub(crate) value: ValueId,
    pub(crate) elements: Elements,
}

/// Elements of a constant, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Elements {
    Float32(Vec<f32>),
    Float16(Vec<f16>),
    Int64(Vec<i64>),
}

impl Elements {
    pub(crate) fn element(&self) -> ElementType {
        match self {
            Elements::Float32(_) => ElementType::Float32,
            Elements::Float16(_) => ElementType::Float16,
            Elements::Int64(_) => ElementType::Int64,
        }
    }

    pub(crate) fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Elements::Float32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Elements::Float16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Elements::Int64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

impl Graph {
    /// Every weight, in the order they are written.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter().map(|stored| &stored.weight)
    }

    /// How often each operator occurs.
    pub fn operators(&self) -> std::collections::BTreeMap<Operator, usize> {
        let mut operators = std::collections::BTreeMap::new();
        for node in &self.nodes {
            *operators.entry(node.operator).or_insert(0) += 1;
        }
        operators
    }
}
