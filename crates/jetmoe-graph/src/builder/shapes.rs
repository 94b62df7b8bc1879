//! Operators that move elements without changing them.

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Result, Shape};

impl Builder {
    /// The same elements in another shape. Sizes that differ from run to run are computed from the inputs' shapes.
    pub(crate) fn reshape(&mut self, operand: &Value, shape: Shape) -> Result<Value> {
        if operand.shape == shape {
            return Ok(operand.clone());
        }
        if operand.shape.elements() != shape.elements() {
            return self.refuse("Reshape", &[operand], format!("{shape} has another number of elements"));
        }
        let target = self.reshape_target(&operand.shape, &shape)?;
        Ok(self.node("Reshape", &[operand, &target], Vec::new(), operand.element, shape))
    }

    /// Axis `i` of the result is axis `order[i]` of the operand.
    pub(crate) fn transpose(&mut self, operand: &Value, order: &[usize]) -> Result<Value> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..operand.shape.rank()) {
            return self.refuse("Transpose", &[operand], format!("{order:?} does not name every axis once"));
        }
        let shape = Shape(order.iter().map(|axis| operand.dimension(*axis).clone()).collect());
        let order = Attribute::Integers(order.iter().map(|axis| *axis as i64).collect());
        Ok(self.node("Transpose", &[operand], vec![("perm", order)], operand.element, shape))
    }

    /// Inserts an axis of size 1.
    pub(crate) fn unsqueeze(&mut self, operand: &Value, axis: usize) -> Result<Value> {
        if axis > operand.shape.rank() {
            return self.refuse("Unsqueeze", &[operand], format!("cannot insert axis {axis}"));
        }
        let mut shape = operand.shape.clone();
        shape.0.insert(axis, Dimension::from(1_i64));
        let axes = self.integers(&[axis as i64]);
        Ok(self.node("Unsqueeze", &[operand, &axes], Vec::new(), operand.element, shape))
    }

    /// Removes an axis of size 1.
    pub(crate) fn squeeze(&mut self, operand: &Value, axis: usize) -> Result<Value> {
        if operand.shape.0.get(axis).and_then(Dimension::fixed) != Some(1) {
            return self.refuse("Squeeze", &[operand], format!("axis {axis} must have size 1"));
        }
        let mut shape = operand.shape.clone();
        shape.0.remove(axis);
        let axes = self.integers(&[axis as i64]);
        Ok(self.node("Squeeze", &[operand, &axes], Vec::new(), operand.element, shape))
    }

    /// Two halves of the last axis.
    pub(crate) fn halves(&mut self, operand: &Value) -> Result<(Value, Value)> {
        let last = operand.shape.0.last().and_then(Dimension::fixed);
        let Some(half) = last.filter(|size| size % 2 == 0).map(|size| size / 2) else {
            return self.refuse("Split", &[operand], "the last axis must have a fixed, even size");
        };
        let axis = operand.shape.rank() - 1;
        let mut shape = operand.shape.clone();
        shape.0[axis] = Dimension::from(half);
        let sizes = self.integers(&[half, half]);
        let attributes = vec![("axis", Attribute::Integer(-1))];
        let results = vec![(operand.element, shape.clone()), (operand.element, shape)];
        let mut results =
            self.node_with_results("Split", &[operand, &sizes], attributes, results).into_iter();
        match (results.next(), results.next()) {
            (Some(first), Some(second)) => Ok((first, second)),
            _ => self.refuse("Split", &[operand], "there must be two results"),
        }
    }

    /// The last `length` of the `skipped + length` elements of an axis.
    pub(crate) fn tail(
        &mut self,
        operand: &Value,
        axis: usize,
        skipped: &Dimension,
        length: &Dimension,
    ) -> Result<Value> {
        if operand.shape.0.get(axis) != Some(&(skipped + length)) {
            return self.refuse(
                "Slice",
                &[operand],
                format!("axis {axis} must have size {skipped} + {length}"),
            );
        }
        if skipped.fixed() == Some(0) {
            return Ok(operand.clone());
        }
        let mut shape = operand.shape.clone();
        shape.0[axis] = length.clone();
        let starts = self.size_vector(&Shape(vec![skipped.clone()]))?;
        let ends = self.size_vector(&Shape(vec![operand.dimension(axis).clone()]))?;
        let axes = self.integers(&[axis as i64]);
        Ok(self.node("Slice", &[operand, &starts, &ends, &axes], Vec::new(), operand.element, shape))
    }

    /// As many of the last elements of an axis as `count` `[1]` says, or all for 0; `length` names how many that are.
    pub(crate) fn last(
        &mut self,
        operand: &Value,
        axis: usize,
        count: &Value,
        length: &Dimension,
    ) -> Result<Value> {
        self.require_element("Slice", &[count], ElementType::Int64)?;
        if axis >= operand.shape.rank() {
            return self.refuse("Slice", &[operand], format!("there is no axis {axis}"));
        }
        let mut shape = operand.shape.clone();
        shape.0[axis] = length.clone();
        let starts = self.neg(count);
        let ends = self.integers(&[i64::MAX]);
        let axes = self.integers(&[axis as i64]);
        Ok(self.node("Slice", &[operand, &starts, &ends, &axes], Vec::new(), operand.element, shape))
    }

    /// The first `length` elements of an axis.
    pub(crate) fn first(&mut self, operand: &Value, axis: usize, length: usize) -> Result<Value> {
        let Some(size) = operand.shape.0.get(axis).and_then(Dimension::fixed) else {
            return self.refuse("Slice", &[operand], format!("axis {axis} must have a fixed size"));
        };
        if size == length as i64 {
            return Ok(operand.clone());
        }
        if size < length as i64 {
            return self.refuse(
                "Slice",
                &[operand],
                format!("axis {axis} must have at least {length} elements"),
            );
        }
        let mut shape = operand.shape.clone();
        shape.0[axis] = Dimension::from(length);
        let (starts, ends) = (self.integers(&[0]), self.integers(&[length as i64]));
        let axes = self.integers(&[axis as i64]);
        Ok(self.node("Slice", &[operand, &starts, &ends, &axes], Vec::new(), operand.element, shape))
    }

    /// Concatenates the operands along an axis.
    pub(crate) fn concat(&mut self, operands: &[&Value], axis: usize) -> Result<Value> {
        let Some((first, others)) = operands.split_first() else {
            return self.refuse("Concat", operands, "there must be at least one operand");
        };
        let mut shape = first.shape.clone();
        for other in others {
            let fits = other.element == first.element
                && other.shape.rank() == shape.rank()
                && (0..shape.rank())
                    .all(|index| index == axis || other.dimension(index) == first.dimension(index));
            if !fits || axis >= shape.rank() {
                return self.refuse("Concat", operands, format!("all axes but {axis} must agree"));
            }
            shape.0[axis] = &shape.0[axis] + other.dimension(axis);
        }
        let attributes = vec![("axis", Attribute::Integer(axis as i64))];
        Ok(self.node("Concat", operands, attributes, first.element, shape))
    }

    /// A tensor of zeros.
    pub(crate) fn zeros(&mut self, element: ElementType, shape: &Shape) -> Result<Value> {
        let sizes = self.size_vector(shape)?;
        // float32 is the default by the specification, but tract 0.23 makes it float64
        let zero = vec![("value", Attribute::Zero(element))];
        Ok(self.node("ConstantOfShape", &[&sizes], zero, element, shape.clone()))
    }

    /// The whole numbers from `start` up to but without `start + count`, `[count]`.
    pub(crate) fn range(&mut self, start: &Dimension, count: &Dimension) -> Result<Value> {
        let first = self.size_scalar(start)?;
        let end = self.size_scalar(&(start + count))?;
        let step = self.integer(1);
        let shape = Shape(vec![count.clone()]);
        Ok(self.node("Range", &[&first, &end, &step], Vec::new(), ElementType::Int64, shape))
    }
}
