//! Matrix products, and how a stored weight becomes their operand.

use jetmoe_artifact::{ModelPart, Profile};
use jetmoe_format::{Encoding, Grouping, Scheme, WeightFormat};

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Error, Opset, Result, Shape, Weight};

impl Builder {
    /// Element type of the activations.
    pub(crate) fn activations(&self) -> ElementType {
        self.graph.precision.activations()
    }

    /// How the weights of a part are stored.
    pub(crate) fn scheme(&self, part: ModelPart, layer: Option<usize>) -> Scheme {
        self.plan.scheme(self.graph.precision, part, layer)
    }

    /// How the weights are stored that are never quantized. In the profile `native` no small weight is worth a conversion in
    /// each step, nor an element type that a runtime may not know.
    pub(crate) fn unquantized_scheme(&self) -> Scheme {
        let format = match self.graph.precision.format() {
            _ if self.graph.profile == Profile::Native => WeightFormat::of_floats(ElementType::Float32),
            format if format.is_quantized() => WeightFormat::of_floats(self.activations()),
            format => format,
        };
        Scheme { format, ..self.scheme(ModelPart::Mlp, None) }
    }

    /// A small weight, such as a norm's or a bias, in the type of the activations.
    pub(crate) fn vector(&mut self, weight: Weight) -> Value {
        let activations = self.activations();
        self.float_weight(weight.encoded(Encoding::Float(activations)), activations)
    }

    /// `x · weightᵀ` for a weight `[outputs, inputs]` of the checkpoint, stored as `scheme` says: `[..., outputs]`, in
    /// the type of `x`.
    pub(crate) fn linear(&mut self, x: &Value, weight: Weight, scheme: Scheme) -> Result<Value> {
        if scheme.format.is_quantized() {
            let weight = self.quantized(weight, scheme)?;
            return self.quantized_product(x, &weight);
        }
        let arithmetic = scheme.format.arithmetic(x.element);
        let encoding = self.encoding(scheme)?;
        let weight = self.float_weight(weight.transposed().encoded(encoding), arithmetic);
        let operand = self.cast(x, arithmetic);
        let product = self.matmul(&operand, &weight)?;
        Ok(self.cast(&product, x.element))
    }

    /// [`Builder::linear`] with a weight that is not transposed, because it is also the embedding table.
    pub(crate) fn linear_as_stored(&mut self, x: &Value, weight: &Value, scheme: Scheme) -> Result<Value> {
        let arithmetic = scheme.format.arithmetic(x.element);
        let (operand, weight) = (self.cast(x, arithmetic), self.cast(weight, arithmetic));
        let product = self.matmul_transposed(&operand, &weight)?;
        Ok(self.cast(&product, x.element))
    }

    /// A weight of one part, converted to `element`.
    pub(crate) fn float_weight(&mut self, weight: Weight, element: ElementType) -> Value {
        let values = self.weight(&weight);
        self.cast(values.elements(), element)
    }

    /// A weight `[outputs, inputs]` as codes and scales.
    pub(crate) fn quantized(&mut self, weight: Weight, scheme: Scheme) -> Result<Weight> {
        let encoding = self.encoding(scheme)?;
        let weight = match encoding {
            Encoding::Grouped(_, Grouping::AlongRows) => weight,
            _ => weight.transposed(),
        };
        let weight = weight.encoded(encoding);
        self.weight(&weight);
        Ok(weight)
    }

    /// `x · weightᵀ` for a weight of [`Builder::quantized`]: `[..., outputs]`, in the type of `x`.
    pub(crate) fn quantized_product(&mut self, x: &Value, weight: &Weight) -> Result<Value> {
        let values = self.weight(weight);
        let Encoding::Grouped(scheme, grouping) = weight.encoding else {
            return self.refuse("MatMul", &[x], format!("{} is not quantized", weight.name()));
        };
        let group_size = scheme.group_size as i64;
        if grouping == Grouping::AlongColumns {
            // runtimes fuse this with the product and never dequantize the whole matrix
            let attributes =
                vec![("axis", Attribute::Integer(0)), ("block_size", Attribute::Integer(group_size))];
            let shape = values.elements().shape.clone();
            let matrix = self.node("DequantizeLinear", &values.all(), attributes, x.element, shape);
            return self.matmul(x, &matrix);
        }
        let shape = weight.shape();
        let (Some((inner, outer)), [outputs, inputs]) = (x.shape.0.split_last(), shape.as_slice()) else {
            return self.refuse("MatMulNBits", &[x], "must have at least one dimension");
        };
        if inner.fixed() != Some(*inputs as i64) {
            return self.refuse("MatMulNBits", &[x], format!("the weight has {inputs} inputs"));
        }
        let result = Shape(outer.iter().cloned().chain([Dimension::from(*outputs)]).collect());
        let integer = |number: usize| Attribute::Integer(number as i64);
        let attributes = vec![
            ("K", integer(*inputs)),
            ("N", integer(*outputs)),
            ("bits", integer(scheme.format.bits())),
            ("block_size", Attribute::Integer(group_size)),
            // activations are quantized to 8 bits, group by group
            ("accuracy_level", Attribute::Integer(4)),
        ];
        let operands = [vec![x], values.all()].concat();
        Ok(self.node("MatMulNBits", &operands, attributes, x.element, result))
    }

    /// How a weight is written that standard operators or those of ONNX Runtime multiply with.
    pub(crate) fn encoding(&self, scheme: Scheme) -> Result<Encoding> {
        if let Some(element) = scheme.format.float_element() {
            return Ok(Encoding::Float(element));
        }
        let (found, needed) = (self.graph.opset, Opset::FIRST_WITH_GROUPS);
        if self.graph.profile == Profile::Portable && found < needed {
            return Err(Error::OpsetForQuantized { found: found.version(), needed: needed.version() });
        }
        let grouping = match self.graph.profile {
            Profile::Portable => Grouping::AlongColumns,
            Profile::OnnxRuntime | Profile::Gpu | Profile::Native => Grouping::AlongRows,
        };
        Ok(Encoding::Grouped(scheme, grouping))
    }

    /// `left · right` over the last two dimensions; the dimensions before them broadcast.
    pub(crate) fn matmul(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.require_float("MatMul", &[left, right])?;
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
        Ok(self.node("MatMul", &[left, right], Vec::new(), left.element, shape))
    }

    /// `left · rightᵀ` for matrices `[rows, inner]` and `[columns, inner]`. It takes a weight in the layout that
    /// checkpoints store, so that a tied embedding table is stored once.
    pub(crate) fn matmul_transposed(&mut self, left: &Value, right: &Value) -> Result<Value> {
        self.require_float("Gemm", &[left, right])?;
        match (left.shape.0.as_slice(), right.shape.0.as_slice()) {
            ([rows, inner], [columns, right_inner]) if inner == right_inner => {
                let shape = Shape(vec![rows.clone(), columns.clone()]);
                let attributes = vec![("transB", Attribute::Integer(1))];
                Ok(self.node("Gemm", &[left, right], attributes, left.element, shape))
            }
            _ => self.refuse("Gemm", &[left, right], "both must be matrices with the same number of columns"),
        }
    }
}
