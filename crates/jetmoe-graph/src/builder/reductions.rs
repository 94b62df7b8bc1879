//! Operators that look along one axis.

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Result, Shape};

impl Builder {
    /// Mean over the last axis, which stays with size 1.
    pub(crate) fn mean_of_last(&mut self, operand: &Value) -> Result<Value> {
        self.require_float("ReduceMean", &[operand])?;
        self.reduce("ReduceMean", operand, operand.shape.rank().wrapping_sub(1), true)
    }

    /// Sum over an axis, which disappears.
    pub(crate) fn sum(&mut self, operand: &Value, axis: usize) -> Result<Value> {
        self.reduce("ReduceSum", operand, axis, false)
    }

    /// Maximum over an axis, which disappears.
    pub(crate) fn max(&mut self, operand: &Value, axis: usize) -> Result<Value> {
        self.reduce("ReduceMax", operand, axis, false)
    }

    /// Sum of all elements up to and with each, along an axis.
    pub(crate) fn cumulative_sum(&mut self, operand: &Value, axis: usize) -> Result<Value> {
        if axis >= operand.shape.rank() {
            return self.refuse("CumSum", &[operand], format!("there is no axis {axis}"));
        }
        let axis = self.integer(axis as i64);
        Ok(self.node("CumSum", &[operand, &axis], Vec::new(), operand.element, operand.shape.clone()))
    }

    /// Softmax over the last axis.
    pub(crate) fn softmax(&mut self, operand: &Value) -> Result<Value> {
        self.require_float("Softmax", &[operand])?;
        let attributes = vec![("axis", Attribute::Integer(-1))];
        Ok(self.node("Softmax", &[operand], attributes, operand.element, operand.shape.clone()))
    }

    /// The `k` largest elements of the last axis in descending order, and their indices.
    pub(crate) fn top_k(&mut self, operand: &Value, k: usize) -> Result<(Value, Value)> {
        let Some((last, outer)) = operand.shape.0.split_last() else {
            return self.refuse("TopK", &[operand], "a scalar has no axis to search");
        };
        if last.fixed().is_none_or(|size| size < k as i64) {
            return self.refuse("TopK", &[operand], format!("the last axis must hold at least {k} elements"));
        }
        let shape = Shape(outer.iter().cloned().chain([Dimension::from(k)]).collect());
        let k = self.integers(&[k as i64]);
        let results = vec![(operand.element, shape.clone()), (ElementType::Int64, shape)];
        let attributes = vec![("axis", Attribute::Integer(-1))];
        let mut results = self.node_with_results("TopK", &[operand, &k], attributes, results).into_iter();
        match (results.next(), results.next()) {
            (Some(values), Some(indices)) => Ok((values, indices)),
            _ => self.refuse("TopK", &[operand], "the operator has two results"),
        }
    }

    fn reduce(&mut self, operator: &'static str, operand: &Value, axis: usize, keep: bool) -> Result<Value> {
        if axis >= operand.shape.rank() {
            return self.refuse(operator, &[operand], format!("there is no axis {axis}"));
        }
        let mut shape = operand.shape.clone();
        if keep {
            shape.0[axis] = Dimension::from(1_i64);
        } else {
            shape.0.remove(axis);
        }
        let axes = self.integers(&[axis as i64]);
        let attributes = vec![("keepdims", Attribute::Integer(i64::from(keep)))];
        Ok(self.node(operator, &[operand, &axes], attributes, operand.element, shape))
    }
}
