//! Constants that are stored in the graph itself. Equal ones are stored once; scalars have rank 0.

use half::f16;

use super::{Builder, Value};
use crate::graph::Elements;
use crate::{ElementType, Shape};

impl Builder {
    /// A float32 scalar, `[]`.
    pub(crate) fn float(&mut self, number: f32) -> Value {
        self.constant_value(
            format!("constant/{number:?}"),
            Elements::Float32(vec![number]),
            Shape(Vec::new()),
        )
    }

    /// A scalar of the type of `like`, `[]`.
    pub(crate) fn float_like(&mut self, like: &Value, number: f32) -> Value {
        if like.element != ElementType::Float16 {
            return self.float(number);
        }
        let number = f16::from_f32(number);
        let name = format!("constant/float16/{:?}", number.to_f32());
        self.constant_value(name, Elements::Float16(vec![number]), Shape(Vec::new()))
    }

    /// An int64 scalar, `[]`.
    pub(crate) fn integer(&mut self, number: i64) -> Value {
        self.constant_value(format!("constant/{number}"), Elements::Int64(vec![number]), Shape(Vec::new()))
    }

    /// An int64 vector, `[numbers.len()]`.
    pub(crate) fn integers(&mut self, numbers: &[i64]) -> Value {
        let shape = Shape(vec![numbers.len().into()]);
        self.constant_value(format!("constant/{numbers:?}"), Elements::Int64(numbers.to_vec()), shape)
    }

    /// A named int64 vector, `[numbers.len()]`.
    pub(crate) fn named_integers(&mut self, name: &str, numbers: Vec<i64>) -> Value {
        let shape = Shape(vec![numbers.len().into()]);
        self.constant_value(name.to_owned(), Elements::Int64(numbers), shape)
    }

    /// A named float32 vector, `[numbers.len()]`.
    pub(crate) fn floats(&mut self, name: &str, numbers: Vec<f32>) -> Value {
        let shape = Shape(vec![numbers.len().into()]);
        self.constant_value(name.to_owned(), Elements::Float32(numbers), shape)
    }
}
