//! The custom operators, domain `jetmoe`: products with packed weights, attention, norms and routers. Operands and attributes come in the order of
//! [`OperatorSchema`](jetmoe_format::OperatorSchema).

use jetmoe_artifact::{ModelPart, Profile};
use jetmoe_format::{
    Attribute as CustomAttribute, CustomOperator, Encoding, Operand, PackedLayout, RowOrder, Scheme,
    WeightSlot,
};
use jetmoe_kernels::Activation;

use super::{Builder, Value, WeightValues};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// A packed weight, and the values of its tensors.
#[derive(Debug, Clone)]
pub(crate) struct PackedWeight {
    layout: PackedLayout,
    values: WeightValues,
}

/// The router's result: experts `[tokens, k]` and the gate of each, `[tokens, k]`.
type TopK<'a> = (&'a Value, &'a Value);

/// Heads of the new tokens, not rotated, and the cache that they continue.
pub(crate) struct AttentionOperands<'a> {
    /// `[tokens * k, kv_heads * channels]`
    pub(crate) queries: &'a Value,
    /// `[tokens, 2 * kv_heads * channels]`
    pub(crate) keys_and_values: &'a Value,
    /// Cosines of the rotary angles, `[tokens, channels / 2]`.
    pub(crate) cos: &'a Value,
    /// Sines of the rotary angles, `[tokens, channels / 2]`.
    pub(crate) sin: &'a Value,
    /// `[batch, past + sequence]`
    pub(crate) attention_mask: &'a Value,
    /// `[sequence_count, 3]`
    pub(crate) sequences: &'a Value,
    /// `[cache_batch_size, kv_heads, capacity, row bytes]`
    pub(crate) past_key: &'a Value,
    /// `[cache_batch_size, kv_heads, capacity, row bytes]`
    pub(crate) past_value: &'a Value,
}

impl Builder {
    /// How the custom operators read a part's weights. `None` where standard ones multiply: in other profiles, and for a
    /// part in a format that the custom operators do not read.
    pub(crate) fn packed_scheme(&self, part: ModelPart, layer: Option<usize>) -> Option<Scheme> {
        let scheme = self.scheme(part, layer);
        let is_packed = self.profile() == Profile::Native && scheme.format.is_packable();
        is_packed.then(|| scheme.packed())
    }

    /// Packs a weight of the checkpoint, one matrix `[outputs, inputs]` or `[experts, outputs, inputs]`.
    pub(crate) fn packed(&mut self, weight: Weight, scheme: Scheme, order: RowOrder) -> PackedWeight {
        let (experts, outputs, inputs) = match *weight.stored {
            [experts, outputs, inputs] => (experts, outputs, inputs),
            [outputs, inputs] => (1, outputs, inputs),
            _ => unreachable!("experts have matrices"),
        };
        let layout = PackedLayout { experts, outputs, inputs, scheme, order };
        PackedWeight { layout, values: self.weight(&weight.encoded(Encoding::Packed(layout))) }
    }

    /// `x · weightᵀ` for a weight `[outputs, inputs]` of a part, by the operator that the profile has for it:
    /// `[tokens, outputs]`, in the type of `x`.
    pub(crate) fn linear_of_part(
        &mut self,
        x: &Value,
        weight: Weight,
        part: ModelPart,
        layer: Option<usize>,
    ) -> Result<Value> {
        match self.packed_scheme(part, layer) {
            Some(scheme) => {
                let weight = self.packed(weight, scheme, RowOrder::AsStored);
                self.packed_linear(x, &weight)
            }
            None => self.linear(x, weight, self.scheme(part, layer)),
        }
    }

    /// `x · weightᵀ` for rows `[rows, inputs]`: `[rows, outputs]`.
    pub(crate) fn packed_linear(&mut self, x: &Value, weight: &PackedWeight) -> Result<Value> {
        let operator = CustomOperator::Linear;
        let rows = self.rows(operator.name(), x, weight.layout.inputs)?;
        let shape = Shape(vec![rows, weight.layout.outputs.into()]);
        self.custom_node(operator, &[(Operand::X, x)], &[(WeightSlot::Only, weight)], None, shape)
    }

    /// Each token `[tokens, inputs]` times the matrices of the experts that it chose, `[tokens, k]`: a row for each slot,
    /// `[tokens * k, outputs]`.
    pub(crate) fn expert_linear(
        &mut self,
        x: &Value,
        experts: &Value,
        weight: &PackedWeight,
    ) -> Result<Value> {
        let operator = CustomOperator::ExpertLinear;
        self.rows(operator.name(), x, weight.layout.inputs)?;
        self.require_element(operator.name(), &[experts], ElementType::Int64)?;
        let shape = Shape(vec![experts.shape.elements(), weight.layout.outputs.into()]);
        let operands = [(Operand::X, x), (Operand::Experts, experts)];
        self.custom_node(operator, &operands, &[(WeightSlot::Only, weight)], None, shape)
    }

    /// The row of each slot, `[tokens * k, inputs]`, times its expert's matrix, gated and summed per token: `[tokens,
    /// outputs]`.
    pub(crate) fn expert_linear_sum(
        &mut self,
        x: &Value,
        (experts, gates): TopK<'_>,
        weight: &PackedWeight,
    ) -> Result<Value> {
        let operator = CustomOperator::ExpertLinearSum;
        let slots = self.rows(operator.name(), x, weight.layout.inputs)?;
        self.require_top_k(operator.name(), (experts, gates))?;
        if slots != experts.shape.elements() {
            return self.refuse(operator.name(), &[x, experts], "every slot needs one row");
        }
        let shape = Shape(vec![experts.dimension(0).clone(), weight.layout.outputs.into()]);
        let operands = [(Operand::X, x), (Operand::Experts, experts), (Operand::Gates, gates)];
        self.custom_node(operator, &operands, &[(WeightSlot::Only, weight)], None, shape)
    }

    /// Gated MLPs of the experts that each token `[tokens, hidden]` chose, gated and summed: `[tokens, hidden]`. `up` has
    /// its gates above, in halves.
    pub(crate) fn expert_mlp(
        &mut self,
        x: &Value,
        (experts, gates): TopK<'_>,
        (up, down): (&PackedWeight, &PackedWeight),
        activation: Activation,
    ) -> Result<Value> {
        let operator = CustomOperator::ExpertMlp;
        let tokens = self.rows(operator.name(), x, up.layout.inputs)?;
        self.require_top_k(operator.name(), (experts, gates))?;
        let (hidden, intermediate) = (down.layout.outputs, down.layout.inputs);
        if (up.layout.inputs, up.layout.outputs) != (hidden, 2 * intermediate) {
            return self.refuse(operator.name(), &[x], "the two weights do not fit together");
        }
        let operands = [(Operand::X, x), (Operand::Experts, experts), (Operand::Gates, gates)];
        let weights = [(WeightSlot::GateAndUp, up), (WeightSlot::Down, down)];
        let shape = Shape(vec![tokens, hidden.into()]);
        self.custom_node(operator, &operands, &weights, Some(activation), shape)
    }

    /// Rows of a matrix at `ids`, dequantized: `[...ids, inputs]`.
    pub(crate) fn packed_embedding(&mut self, ids: &Value, weight: &PackedWeight) -> Result<Value> {
        let operator = CustomOperator::Embedding;
        self.require_element(operator.name(), &[ids], ElementType::Int64)?;
        let row = Dimension::from(weight.layout.inputs);
        let shape = Shape(ids.shape.0.iter().cloned().chain([row]).collect());
        self.custom_node(operator, &[(Operand::Ids, ids)], &[(WeightSlot::Only, weight)], None, shape)
    }

    /// Causal softmax attention over a cache, which it updates in place where past and present are one buffer: `[tokens * k,
    /// kv_heads * channels]` and the present key and value, `[cache_batch_size, kv_heads, past + sequence, row bytes]` each.
    pub(crate) fn attention(
        &mut self,
        operands: &AttentionOperands<'_>,
        (kv_heads, channels): (usize, usize),
    ) -> Result<(Value, Value, Value)> {
        let operator = CustomOperator::Attention;
        let AttentionOperands {
            queries,
            keys_and_values,
            cos,
            sin,
            attention_mask,
            sequences,
            past_key,
            past_value,
        } = *operands;
        let name = operator.name();
        let Some(format) = self.graph.kv_cache else {
            return self.refuse(name, &[past_key], "the graph has another cache");
        };
        self.rows(name, queries, kv_heads * channels)?;
        self.rows(name, keys_and_values, 2 * kv_heads * channels)?;
        self.rows(name, cos, channels / 2)?;
        self.rows(name, sin, channels / 2)?;
        self.require_element(name, &[attention_mask, sequences], ElementType::Int64)?;
        self.require_element(name, &[past_key, past_value], ElementType::UInt8)?;
        let row_bytes = past_key.shape.0.last().and_then(Dimension::fixed);
        if row_bytes != format.row_bytes(channels).map(|bytes| bytes as i64) {
            return self.refuse(name, &[past_key], format!("{channels} channels do not fit as {format}"));
        }
        let mut present = past_key.shape.clone();
        if let (Some(length), Some(total)) = (present.0.get_mut(2), attention_mask.shape.0.last()) {
            *length = total.clone();
        }
        let inputs = operator.schema().operands.iter().filter_map(|operand| match operand {
            Operand::Queries => Some(queries),
            Operand::KeysAndValues => Some(keys_and_values),
            Operand::Cos => Some(cos),
            Operand::Sin => Some(sin),
            Operand::AttentionMask => Some(attention_mask),
            Operand::Sequences => Some(sequences),
            Operand::PastKey => Some(past_key),
            Operand::PastValue => Some(past_value),
            _ => None,
        });
        let inputs: Vec<&Value> = inputs.collect();
        let attributes = operator.schema().attributes.iter().map(|attribute| {
            let value = match attribute {
                CustomAttribute::KvCache => Attribute::Text(format.name()),
                _ => Attribute::Integer(kv_heads as i64),
            };
            (attribute.name(), value)
        });
        let attributes = attributes.collect();
        let results = vec![
            (ElementType::Float32, queries.shape.clone()),
            (ElementType::UInt8, present.clone()),
            (ElementType::UInt8, present),
        ];
        let mut results = self.node_with_results(name, &inputs, attributes, results).into_iter();
        match (results.next(), results.next(), results.next()) {
            (Some(output), Some(key), Some(value)) => Ok((output, key, value)),
            _ => self.refuse(name, &inputs, "the operator has three results"),
        }
    }

    /// x / √(mean(x²) + ε) · weight for each row of x `[tokens, hidden]`.
    pub(crate) fn rms_norm(&mut self, x: &Value, weight: &Value, epsilon: f64) -> Result<Value> {
        let operator = CustomOperator::RmsNorm;
        let width = weight.shape.elements().fixed().unwrap_or(0);
        self.rows(operator.name(), x, width as usize)?;
        let attributes = vec![(CustomAttribute::Epsilon.name(), Attribute::Float(epsilon as f32))];
        Ok(self.node(operator.name(), &[x, weight], attributes, ElementType::Float32, x.shape.clone()))
    }

    /// The `k` best experts of each row of x `[tokens, hidden]`, by a weight `[experts, hidden]`: the logits of all experts
    /// `[tokens, experts]`, the selected experts and their gates, `[tokens, k]` both.
    pub(crate) fn route(&mut self, x: &Value, weight: &Value, k: usize) -> Result<[Value; 3]> {
        let name = CustomOperator::Router.name();
        let (experts, hidden) = match weight.shape.0.as_slice() {
            [experts, hidden] => (experts.clone(), hidden.fixed().unwrap_or(0)),
            _ => return self.refuse(name, &[x, weight], "the weight must be a matrix"),
        };
        let tokens = self.rows(name, x, hidden as usize)?;
        let attributes = vec![(CustomAttribute::ExpertsPerToken.name(), Attribute::Integer(k as i64))];
        let selected = Shape(vec![tokens.clone(), k.into()]);
        let shapes = [Shape(vec![tokens, experts]), selected.clone(), selected];
        let results = CustomOperator::Router.schema().results().iter().copied().zip(shapes).collect();
        let results = self.node_with_results(name, &[x, weight], attributes, results);
        results.try_into().or_else(|_| self.refuse(name, &[x, weight], "the operator has three results"))
    }

    /// The number of rows of a float32 matrix with so many columns.
    fn rows(&self, operator: &'static str, x: &Value, inputs: usize) -> Result<Dimension> {
        self.require_element(operator, &[x], ElementType::Float32)?;
        match x.shape.0.as_slice() {
            [rows, columns] if columns.fixed() == Some(inputs as i64) => Ok(rows.clone()),
            _ => self.refuse(operator, &[x], format!("must be a matrix with {inputs} columns")),
        }
    }

    fn require_top_k(&self, operator: &'static str, (experts, gates): TopK<'_>) -> Result<()> {
        self.require_element(operator, &[experts], ElementType::Int64)?;
        self.require_element(operator, &[gates], ElementType::Float32)?;
        if experts.shape == gates.shape && experts.shape.rank() == 2 {
            Ok(())
        } else {
            self.refuse(operator, &[experts, gates], "every expert that was chosen needs one gate")
        }
    }

    /// Adds a node with operands and attributes in the order of the operator's schema.
    fn custom_node(
        &mut self,
        operator: CustomOperator,
        activations: &[(Operand, &Value)],
        weights: &[(WeightSlot, &PackedWeight)],
        activation: Option<Activation>,
        shape: Shape,
    ) -> Result<Value> {
        let schema = operator.schema();
        let weight = |slot| weights.iter().find(|(found, _)| *found == slot).map(|(_, weight)| *weight);
        let value = |operand: &Operand| match operand.tensor() {
            None => activations.iter().find(|(found, _)| found == operand).map(|(_, value)| *value),
            Some((slot, role)) => weight(slot)?.values.get(role),
        };
        let operands: Vec<&Value> = schema.operands.iter().map_while(value).collect();
        // only operands at the end may be absent
        let given = schema.operands.iter().filter_map(value).count();
        if given != operands.len() || schema.operands[given..].iter().any(|operand| !operand.is_optional()) {
            return self.refuse(operator.name(), &operands, "an operand is missing");
        }
        let attributes = schema.attributes.iter().filter_map(|attribute| {
            let value = match attribute.value(|slot| weight(slot).map(|weight| weight.layout)) {
                Some(number) => Attribute::Integer(number as i64),
                None => Attribute::Text(activation?.name()),
            };
            Some((attribute.name(), value))
        });
        let attributes = attributes.collect();
        Ok(self.node(operator.name(), &operands, attributes, ElementType::Float32, shape))
    }
}
