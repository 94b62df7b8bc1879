//! Gather and scatter: how tokens find their experts and back.

use jetmoe_format::Scheme;

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Result, Shape, Weight};

impl Builder {
    /// Rows of `table` (its first axis) at `indices`: `[...indices, ...rest of table]`.
    pub(crate) fn gather(&mut self, table: &Value, indices: &Value) -> Result<Value> {
        self.gather_along(table, indices, 0)
    }

    /// Elements of `table` at `indices` of an axis, which the axes of `indices` take the place of.
    pub(crate) fn gather_along(&mut self, table: &Value, indices: &Value, axis: usize) -> Result<Value> {
        self.require_element("Gather", &[indices], ElementType::Int64)?;
        if axis >= table.shape.rank() {
            return self.refuse("Gather", &[table, indices], format!("the table has no axis {axis}"));
        }
        let (before, after) = table.shape.0.split_at(axis);
        let shape = Shape([before, indices.shape.0.as_slice(), &after[1..]].concat());
        let attributes = vec![("axis", Attribute::Integer(axis as i64))];
        Ok(self.node("Gather", &[table, indices], attributes, table.element, shape))
    }

    /// Rows of a quantized matrix at `indices`, dequantized, `[...indices, row]`, or matrices of several, `[...indices, rows,
    /// row]`. `codes` are those of `weight` with each row's groups in one dimension; a row's last group is padded.
    pub(crate) fn gather_quantized(
        &mut self,
        codes: &Value,
        weight: &Weight,
        scheme: &Scheme,
        indices: &Value,
    ) -> Result<Value> {
        self.require_element("GatherBlockQuantized", &[indices], ElementType::Int64)?;
        let values = self.weight(weight);
        let bits = scheme.format.bits() as i64;
        let (between, row) = match codes.shape.0.as_slice() {
            [_, between @ .., row] => (between, row.fixed().unwrap_or(0) * 8 / bits),
            _ => return self.refuse("GatherBlockQuantized", &[codes, indices], "the codes have no rows"),
        };
        let shape = indices.shape.0.iter().chain(between).cloned().chain([Dimension::from(row)]);
        let shape = Shape(shape.collect());
        let attributes = vec![
            ("bits", Attribute::Integer(bits)),
            ("block_size", Attribute::Integer(scheme.group_size as i64)),
            ("gather_axis", Attribute::Integer(0)),
            ("quantize_axis", Attribute::Integer(codes.shape.rank() as i64 - 1)),
        ];
        let operands = [&[codes, indices], &values.all()[1..]].concat();
        Ok(self.node("GatherBlockQuantized", &operands, attributes, scheme.scales, shape))
    }

    /// Indices of the elements of a vector that are true, ascending: `[count]`, where `count` names the new symbol
    /// for their number.
    pub(crate) fn indices_of_true(&mut self, condition: &Value, count: &Dimension) -> Result<Value> {
        self.require_element("NonZero", &[condition], ElementType::Bool)?;
        if condition.shape.rank() != 1 {
            return self.refuse("NonZero", &[condition], "must be a vector here");
        }
        let shape = Shape(vec![Dimension::from(1_i64), count.clone()]);
        let indices = self.node("NonZero", &[condition], Vec::new(), ElementType::Int64, shape); // [1, count]
        self.squeeze(&indices, 0)
    }

    /// Puts `rows` `[n, width]` to the places `indices` `[n]` of a new matrix `[size, width]`, whose other rows are
    /// zero. `size` is computed from the graph's inputs and not from the rows, because tract must know it before a run.
    pub(crate) fn scatter_rows(&mut self, rows: &Value, indices: &Value, size: &Dimension) -> Result<Value> {
        self.require_float("ScatterND", &[rows])?;
        self.require_element("ScatterND", &[indices], ElementType::Int64)?;
        let ([count, width], [index_count]) = (rows.shape.0.as_slice(), indices.shape.0.as_slice()) else {
            return self.refuse("ScatterND", &[rows, indices], "rows must be a matrix and indices a vector");
        };
        if count != index_count {
            return self.refuse("ScatterND", &[rows, indices], "every row needs one index");
        }
        let shape = Shape(vec![size.clone(), width.clone()]);
        let zeros = self.zeros(rows.element, &shape)?;
        let indices = self.unsqueeze(indices, 1)?; // [n, 1]
        Ok(self.node("ScatterND", &[&zeros, &indices, rows], Vec::new(), rows.element, shape))
    }
}
