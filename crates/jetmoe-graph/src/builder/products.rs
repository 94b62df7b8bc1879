//! Matrix products, and how a stored weight becomes their operand.

use jetmoe_artifact::{ModelPart, Profile, Storage, WeightStorage};
use jetmoe_quantize::{Bits, Scales, Scheme};

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::weight::{Encoding, Groups};
use crate::{Dimension, ElementType, Error, Opset, Result, Shape, Weight};

/// Float32 and bfloat16 weights are multiplied in float32, all others in the type of the activations.
fn arithmetic(storage: Storage, activations: ElementType) -> ElementType {
    match storage.weights {
        WeightStorage::F32 | WeightStorage::Bf16 => ElementType::Float32,
        WeightStorage::F16 | WeightStorage::Int8 | WeightStorage::Int4 => activations,
    }
}

impl Builder {
    /// Element type of the activations.
    pub(crate) fn activations(&self) -> ElementType {
        self.graph.precision.activations().into()
    }

    /// How the weights of a part are stored.
    pub(crate) fn storage(&self, part: ModelPart, layer: Option<usize>) -> Storage {
        self.plan.storage(self.graph.precision, part, layer)
    }

    /// How the weights are stored that are never quantized. In the profile `native` no small weight is worth a conversion in
    /// each step, nor an element type that a runtime may not know.
    pub(crate) fn unquantized_storage(&self) -> Storage {
        let weights = match (self.graph.precision.storage(), self.activations()) {
            _ if self.graph.profile == Profile::Native => WeightStorage::F32,
            (storage, _) if !storage.is_quantized() => storage,
            (_, ElementType::Float16) => WeightStorage::F16,
            _ => WeightStorage::F32,
        };
        Storage { weights, group_size: self.plan.group_size, zero_points: self.plan.zero_points }
    }

    /// A small weight, such as a norm's or a bias, in the type of the activations.
    pub(crate) fn vector(&mut self, weight: Weight) -> Value {
        let activations = self.activations();
        self.float_weight(weight.encoded(Encoding::Float(activations)), activations)
    }

    /// `x · weightᵀ` for a weight `[outputs, inputs]` of the checkpoint, stored as `storage` says: `[..., outputs]`, in
    /// the type of `x`.
    pub(crate) fn linear(&mut self, x: &Value, weight: Weight, storage: Storage) -> Result<Value> {
        if storage.weights.is_quantized() {
            let weight = self.quantized(weight, storage, x.element)?;
            return self.quantized_product(x, &weight);
        }
        let arithmetic = arithmetic(storage, x.element);
        let encoding = self.encoding(storage, arithmetic)?;
        let weight = self.float_weight(weight.transposed().encoded(encoding), arithmetic);
        let operand = self.cast(x, arithmetic);
        let product = self.matmul(&operand, &weight)?;
        Ok(self.cast(&product, x.element))
    }

    /// [`Builder::linear`] with a weight that is not turned round, as it is also looked up by row.
    pub(crate) fn linear_as_stored(&mut self, x: &Value, weight: &Value, storage: Storage) -> Result<Value> {
        let arithmetic = arithmetic(storage, x.element);
        let (operand, weight) = (self.cast(x, arithmetic), self.cast(weight, arithmetic));
        let product = self.matmul_transposed(&operand, &weight)?;
        Ok(self.cast(&product, x.element))
    }

    /// A weight of one part, converted to `element`.
    pub(crate) fn float_weight(&mut self, weight: Weight, element: ElementType) -> Value {
        let parts = self.weight(&weight);
        self.cast(&parts[0], element)
    }

    /// A weight `[outputs, inputs]` as codes and scales, for a product with values of type `element`.
    pub(crate) fn quantized(
        &mut self,
        weight: Weight,
        storage: Storage,
        element: ElementType,
    ) -> Result<Weight> {
        let encoding = self.encoding(storage, element)?;
        let weight = match encoding {
            Encoding::Quantized(_, Groups::AlongRows) => weight,
            _ => weight.transposed(),
        };
        let weight = weight.encoded(encoding);
        self.weight(&weight);
        Ok(weight)
    }

    /// `x · weightᵀ` for a weight of [`Builder::quantized`]: `[..., outputs]`, in the type of `x`.
    pub(crate) fn quantized_product(&mut self, x: &Value, weight: &Weight) -> Result<Value> {
        let parts = self.weight(weight);
        let Encoding::Quantized(scheme, groups) = weight.encoding else {
            return self.refuse("MatMul", &[x], format!("{} is not quantized", weight.name()));
        };
        let group_size = scheme.group_size as i64;
        if groups == Groups::AlongColumns {
            // runtimes put this and the product together and never restore the whole matrix
            let attributes =
                vec![("axis", Attribute::Integer(0)), ("block_size", Attribute::Integer(group_size))];
            let operands: Vec<&Value> = parts.iter().collect();
            let shape = parts[0].shape.clone();
            let restored = self.node("DequantizeLinear", &operands, attributes, x.element, shape);
            return self.matmul(x, &restored);
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
            ("bits", integer(scheme.bits.count())),
            ("block_size", Attribute::Integer(group_size)),
            // what is multiplied with the weights is rounded to 8 bits, group by group
            ("accuracy_level", Attribute::Integer(4)),
        ];
        let operands: Vec<&Value> = [x].into_iter().chain(&parts).collect();
        Ok(self.node("MatMulNBits", &operands, attributes, x.element, result))
    }

    /// How a weight is written that enters a product of type `arithmetic`.
    pub(crate) fn encoding(&self, storage: Storage, arithmetic: ElementType) -> Result<Encoding> {
        let bits = match storage.weights {
            WeightStorage::F32 => return Ok(Encoding::Float(ElementType::Float32)),
            WeightStorage::F16 => return Ok(Encoding::Float(ElementType::Float16)),
            WeightStorage::Bf16 => return Ok(Encoding::Float(ElementType::BFloat16)),
            WeightStorage::Int8 => Bits::Eight,
            WeightStorage::Int4 => Bits::Four,
        };
        let (found, needed) = (self.graph.opset, Opset::FIRST_WITH_GROUPS);
        if self.graph.profile == Profile::Portable && found < needed {
            return Err(Error::OpsetForQuantized { found: found.version(), needed: needed.version() });
        }
        let scales = if arithmetic == ElementType::Float16 { Scales::Float16 } else { Scales::Float32 };
        let Storage { group_size, zero_points, .. } = storage;
        let groups = match self.graph.profile {
            Profile::Portable => Groups::AlongColumns,
            Profile::OnnxRuntime | Profile::Native => Groups::AlongRows,
        };
        Ok(Encoding::Quantized(Scheme { bits, group_size, zero_points, scales }, groups))
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
    /// checkpoints store, so that a table that is also looked up by row is stored once.
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
