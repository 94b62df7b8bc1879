//! Matrix products.

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{ElementType, Result, Shape};

impl Builder {
    /// `left · right` over the last two dimensions; the dimensions before them broadcast.
    pub(crate) fn matmul(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.require_element("MatMul", &[left, right], ElementType::Float32)?;
        let split = |value: &Value| {
            let rank = value.shape.rank().checked_sub(2)?;
            let (batch, matrix) = value.shape.0.split_at(rank);
            Some((Shape(batch.to_vec()), matrix[0].clone(), matrix[1].clone()))
        };
        let (Some((left_batch, rows, inner)), Some((right_batch, right_inner, columns))) =
            (split(left), split(right))
        else {
            return self.refuse("MatMul", &[left, right], "both must have at least two dimensions");
        };
        if inner != right_inner {
            return self.refuse(
                "MatMul",
                &[left, right],
                format!("columns on the left ({inner}) and rows on the right ({right_inner}) differ"),
            );
        }
        let Some(mut shape) = left_batch.broadcast(&right_batch) else {
            return self.refuse("MatMul", &[left, right], "leading dimensions do not broadcast");
        };
        shape.0.extend([rows, columns]);
        Ok(self.node("MatMul", &[left, right], Vec::new(), ElementType::Float32, shape))
    }

    /// `left · rightᵀ` for matrices `[rows, inner]` and `[columns, inner]`. It takes a weight in the layout that
    /// checkpoints store, so that a table that is also looked up by row is stored once.
    pub(crate) fn matmul_transposed(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.require_element("Gemm", &[left, right], ElementType::Float32)?;
        match (left.shape.0.as_slice(), right.shape.0.as_slice()) {
            ([rows, inner], [columns, right_inner]) if inner == right_inner => {
                let shape = Shape(vec![rows.clone(), columns.clone()]);
                let attributes = vec![("transB", Attribute::Integer(1))];
                Ok(self.node("Gemm", &[left, right], attributes, ElementType::Float32, shape))
            }
            _ => self.refuse("Gemm", &[left, right], "both must be matrices with the same number of columns"),
        }
    }
}
