//! Products with the matrices of experts that are selected while the graph runs.

use jetmoe_format::{Encoding, Grouping, Scheme};

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Result, Shape, Weight};

impl Builder {
    /// Each matrix of `rows`, `[pieces, rows, inputs]`, times the transposed matrix of its expert: `[pieces, rows, outputs]`, in
    /// the type of `rows`. `weight` is `[experts, outputs, inputs]` as the checkpoint stores it, and `experts` `[pieces]`.
    pub(crate) fn product_of_experts(
        &mut self,
        rows: &Value,
        experts: &Value,
        weight: Weight,
        scheme: Scheme,
    ) -> Result<Value> {
        let arithmetic = scheme.format.arithmetic(rows.element);
        let matrices = self.matrices_of_experts(experts, weight, scheme)?; // [pieces, outputs, inputs]
        let matrices = self.cast(&matrices, arithmetic);
        let operand = self.cast(rows, arithmetic);
        let product = self.matmul_batch_transposed(&operand, &matrices)?;
        Ok(self.cast(&product, rows.element))
    }

    /// The matrices of the selected experts, `[pieces, outputs, inputs]`, dequantized.
    fn matrices_of_experts(&mut self, experts: &Value, weight: Weight, scheme: Scheme) -> Result<Value> {
        let [_, _, inputs] = *weight.stored else {
            return self.refuse(
                "Gather",
                &[experts],
                format!("{} is no matrix of each expert", weight.name()),
            );
        };
        if let Some(element) = scheme.format.float_element() {
            let values = self.weight(&weight.encoded(Encoding::Float(element)));
            return self.gather(values.elements(), experts);
        }
        let weight = weight.encoded(Encoding::Grouped(scheme, Grouping::AlongRows));
        let values = self.weight(&weight);
        let matrices = self.gather_quantized(values.elements(), &weight, &scheme, experts)?;
        self.first(&matrices, 2, inputs)
    }

    /// `left · rightᵀ` for each pair of matrices, `[pieces, rows, inner]` and `[pieces, columns, inner]`.
    ///
    /// By the definition of `com.microsoft.FusedMatMul`.
    fn matmul_batch_transposed(&mut self, left: &Value, right: &Value) -> Result<Value> {
        const OPERATOR: &str = "FusedMatMul";
        self.require_float(OPERATOR, &[left, right])?;
        match (left.shape.0.as_slice(), right.shape.0.as_slice()) {
            ([pieces, rows, inner], [right_pieces, columns, right_inner])
                if pieces == right_pieces && inner == right_inner =>
            {
                let shape = Shape(vec![pieces.clone(), rows.clone(), columns.clone()]);
                let attributes = vec![("transB", Attribute::Integer(1))];
                Ok(self.node(OPERATOR, &[left, right], attributes, left.element, shape))
            }
            _ => self.refuse(
                OPERATOR,
                &[left, right],
                "both must have as many matrices, with the same number of columns",
            ),
        }
    }

    /// Puts `numbers` `[n]` to the places `indices` `[n]` of a new vector `[size]`, whose other elements are 0.
    pub(crate) fn scatter_integers(
        &mut self,
        numbers: &Value,
        indices: &Value,
        size: &Dimension,
    ) -> Result<Value> {
        self.require_element("ScatterND", &[numbers, indices], ElementType::Int64)?;
        if numbers.shape != indices.shape || numbers.shape.rank() != 1 {
            return self.refuse("ScatterND", &[numbers, indices], "every number needs one index");
        }
        let shape = Shape(vec![size.clone()]);
        let zeros = self.zeros(ElementType::Int64, &shape)?;
        let indices = self.unsqueeze(indices, 1)?; // [n, 1]
        Ok(self.node("ScatterND", &[&zeros, &indices, numbers], Vec::new(), ElementType::Int64, shape))
    }
}
