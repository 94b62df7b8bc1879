//! Operators that work on each element alone.

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{ElementType, Result};

impl Builder {
    pub(crate) fn add(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.arithmetic("Add", left, right)
    }

    pub(crate) fn sub(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.arithmetic("Sub", left, right)
    }

    pub(crate) fn mul(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.arithmetic("Mul", left, right)
    }

    /// Quotient; rounded towards zero for integers.
    pub(crate) fn div(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.arithmetic("Div", left, right)
    }

    pub(crate) fn pow(&mut self, base: &Value, exponent: &Value) -> Result<Value> {
        self.arithmetic("Pow", base, exponent)
    }

    /// The larger one of each pair of elements.
    pub(crate) fn maximum(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.arithmetic("Max", left, right)
    }

    /// The smaller one of each pair of elements.
    pub(crate) fn minimum(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.arithmetic("Min", left, right)
    }

    pub(crate) fn equal(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.comparison("Equal", left, right)
    }

    pub(crate) fn less_or_equal(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.comparison("LessOrEqual", left, right)
    }

    pub(crate) fn and(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.require_element("And", &[left, right], ElementType::Bool)?;
        self.binary("And", left, right, ElementType::Bool)
    }

    pub(crate) fn not(&mut self, operand: &Value) -> Result<Value> {
        self.require_element("Not", &[operand], ElementType::Bool)?;
        Ok(self.unary("Not", operand))
    }

    pub(crate) fn sqrt(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Sqrt", operand)
    }

    pub(crate) fn cos(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Cos", operand)
    }

    pub(crate) fn sin(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Sin", operand)
    }

    pub(crate) fn sigmoid(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Sigmoid", operand)
    }

    pub(crate) fn tanh(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Tanh", operand)
    }

    pub(crate) fn erf(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Erf", operand)
    }

    pub(crate) fn relu(&mut self, operand: &Value) -> Result<Value> {
        self.float_function("Relu", operand)
    }

    /// Converts to another element type; nothing happens where it is that already.
    pub(crate) fn cast(&mut self, operand: &Value, element: ElementType) -> Value {
        if operand.element == element {
            return operand.clone();
        }
        let to = Attribute::Integer(i64::from(element as i32));
        self.node("Cast", &[operand], vec![("to", to)], element, operand.shape.clone())
    }

    /// `yes` where `condition` holds, else `no`.
    pub(crate) fn select(&mut self, condition: &Value, yes: &Value, no: &Value) -> Result<Value> {
        self.require_element("Where", &[condition], ElementType::Bool)?;
        let operands = [condition, yes, no];
        let shape = condition.shape.broadcast(&yes.shape).and_then(|shape| shape.broadcast(&no.shape));
        match shape {
            Some(shape) if yes.element == no.element => {
                Ok(self.node("Where", &operands, Vec::new(), yes.element, shape))
            }
            _ => self.refuse("Where", &operands, "shapes must broadcast and both values have one type"),
        }
    }

    fn arithmetic(&mut self, operator: &'static str, left: &Value, right: &Value) -> Result<Value> {
        if left.element == ElementType::Bool {
            return self.refuse(operator, &[left, right], "arithmetic needs numbers");
        }
        self.binary(operator, left, right, left.element)
    }

    fn comparison(&mut self, operator: &'static str, left: &Value, right: &Value) -> Result<Value> {
        self.binary(operator, left, right, ElementType::Bool)
    }

    fn binary(
        &mut self,
        operator: &'static str,
        left: &Value,
        right: &Value,
        result: ElementType,
    ) -> Result<Value> {
        if left.element != right.element {
            return self.refuse(operator, &[left, right], "element types differ");
        }
        match left.shape.broadcast(&right.shape) {
            Some(shape) => Ok(self.node(operator, &[left, right], Vec::new(), result, shape)),
            None => self.refuse(operator, &[left, right], "shapes do not broadcast"),
        }
    }

    pub(crate) fn neg(&mut self, operand: &Value) -> Value {
        self.unary("Neg", operand)
    }

    fn float_function(&mut self, operator: &'static str, operand: &Value) -> Result<Value> {
        self.require_float(operator, &[operand])?;
        Ok(self.unary(operator, operand))
    }

    fn unary(&mut self, operator: &'static str, operand: &Value) -> Value {
        self.node(operator, &[operand], Vec::new(), operand.element, operand.shape.clone())
    }
}
