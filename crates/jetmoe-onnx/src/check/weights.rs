//! Operators with sizes in their attributes: attention and its cache, and products with quantized or packed weights. The sizes must be those
//! of the configuration, and the weights must have the shapes that follow from them.

use std::fmt::Display;

use jetmoe_artifact::GraphRecord;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_format::{
    AttentionHeads, Attributes, CustomOperator, DOMAIN, ElementType, Encoding, Grouping, OperatorNode,
    Scheme, TensorRole, TensorSpec, WeightFormat, WeightSlot,
};

use super::Checked;
use super::nodes::{Operation, Value};
use crate::Node;
use crate::operators::MICROSOFT;

/// Checks a node whose attributes have the values that the operator can have.
pub(super) fn check(operation: &Operation<'_>, config: &ModelConfig, record: &GraphRecord) -> Checked {
    match (operation.operator.domain, operation.operator.name) {
        (MICROSOFT, "GroupQueryAttention") => check_attention(operation, config),
        (MICROSOFT, "MatMulNBits") => check_rows(operation, config),
        (MICROSOFT, "GatherBlockQuantized") => check_table(operation, config),
        ("", "DequantizeLinear") => check_columns(operation, config),
        (DOMAIN, _) => check_custom(operation, config, record),
        _ => Ok(()),
    }
}

fn check_attention(operation: &Operation<'_>, config: &ModelConfig) -> Checked {
    let expected =
        [("num_heads", config.num_attention_heads()), ("kv_num_heads", config.num_key_value_heads)];
    for (name, expected) in expected {
        let found = operation.integer(name);
        if usize::try_from(found) != Ok(expected) {
            return operation.refuse(format_args!("its {name} is {found}, and config.json says {expected}"));
        }
    }
    check_cache(operation, 3)
}

/// The cache that attention continues: the operand of this index, and the next one.
fn check_cache(operation: &Operation<'_>, index: usize) -> Checked {
    match operation.operands[index..] {
        [Value::Input, Value::Input, ..] => Ok(()),
        _ => operation.refuse("the cache that it continues must be inputs of the graph"),
    }
}

/// Inputs and outputs of every product with a weight that can be quantized.
fn products(config: &ModelConfig) -> [(usize, usize); 6] {
    let (hidden, kv_width, intermediate) = (config.hidden_size, config.kv_width(), config.intermediate_size);
    [
        (hidden, kv_width.saturating_mul(2)),
        (hidden, kv_width),
        (kv_width, hidden),
        (hidden, intermediate.saturating_mul(2)),
        (intermediate, hidden),
        (hidden, config.vocab_size),
    ]
}

fn check_product(operation: &Operation<'_>, config: &ModelConfig, sizes: (usize, usize)) -> Checked {
    if products(config).contains(&sizes) {
        return Ok(());
    }
    let (inputs, outputs) = sizes;
    operation.refuse(format_args!(
        "a weight of {inputs} inputs and {outputs} outputs is in no model of this config.json"
    ))
}

/// The scheme of codes in groups, with scales in the operand `scales`.
fn group_scheme(operation: &Operation<'_>, bits: i64, scales: usize, zero_points: bool) -> Checked<Scheme> {
    let group_size = operation.integer("block_size") as usize;
    let scales = operation.tensor(scales)?.element;
    let format = WeightFormat::packable(bits).ok().filter(|format| format.is_quantized());
    match format {
        Some(format) if scales.is_float() && Scheme::GROUP_SIZES.contains(&group_size) => {
            Ok(Scheme { format, group_size, zero_points, scales })
        }
        _ => operation.refuse(format_args!(
            "groups of {group_size} codes of {bits} bits with scales of {scales} are not in exported graphs"
        )),
    }
}

/// Compares operands with the tensors of a weight.
fn check_tensors(operation: &Operation<'_>, tensors: &[(usize, TensorSpec)]) -> Checked {
    tensors.iter().try_for_each(|(index, TensorSpec { role, element, shape, .. })| {
        check_operand(operation, *index, format_args!(", the {role} of a weight,"), *element, shape)
    })
}

/// Compares an operand with the weight that it must be; `what` follows its number in the message.
fn check_operand(
    operation: &Operation<'_>,
    index: usize,
    what: impl Display,
    element: ElementType,
    shape: &[usize],
) -> Checked {
    let found = operation.tensor(index)?;
    if found.element == element && found.dims == shape {
        return Ok(());
    }
    operation.refuse(format_args!(
        "its operand {index}{what} is {}{:?}, expected {element}{shape:?}",
        found.element, found.dims
    ))
}

/// `MatMulNBits`: x, codes, scales, zero points.
fn check_rows(operation: &Operation<'_>, config: &ModelConfig) -> Checked {
    let (inputs, outputs) = (operation.integer("K") as usize, operation.integer("N") as usize);
    check_product(operation, config, (inputs, outputs))?;
    let scheme = group_scheme(operation, operation.integer("bits"), 2, operation.operands.len() == 4)?;
    let tensors = Encoding::Grouped(scheme, Grouping::AlongRows).tensors(&[outputs, inputs]);
    check_tensors(operation, &(1..).zip(tensors).collect::<Vec<_>>())
}

/// `GatherBlockQuantized`: codes, ids, scales, zero points. It gathers rows of the embedding table, with the groups of a row in
/// one dimension, or the matrices of experts.
fn check_table(operation: &Operation<'_>, config: &ModelConfig) -> Checked {
    let codes = operation.tensor(0)?;
    let last_axis = codes.dims.len() as i64 - 1;
    if (operation.integer("gather_axis"), operation.integer("quantize_axis")) != (0, last_axis) {
        return operation
            .refuse("it must gather along the first axis what has its groups along the last one");
    }
    let scheme = group_scheme(operation, operation.integer("bits"), 2, operation.operands.len() == 4)?;
    let shape = match codes.dims.as_slice() {
        [_, _] => vec![config.vocab_size, config.hidden_size],
        [_, outputs, _] => {
            let matches = |(inputs, size): &(usize, usize)| {
                let tensors = Encoding::Grouped(scheme, Grouping::AlongRows).tensors(&[1, *outputs, *inputs]);
                size == outputs && tensors.first().is_some_and(|codes_of| codes_of.shape[2] == codes.dims[2])
            };
            let Some((inputs, outputs)) = products(config).into_iter().find(matches) else {
                return operation
                    .refuse(format_args!("its codes {:?} are of no expert of this config.json", codes.dims));
            };
            vec![config.num_local_experts, outputs, inputs]
        }
        dims => return operation.refuse(format_args!("its codes have {} axes, expected 2 or 3", dims.len())),
    };
    let mut tensors = Encoding::Grouped(scheme, Grouping::AlongRows).tensors(&shape);
    if let (Some(codes), [rows, _]) = (tensors.first_mut(), shape.as_slice()) {
        codes.shape = vec![*rows, codes.shape[1..].iter().product()];
    }
    check_tensors(operation, &[0, 2, 3].into_iter().zip(tensors).collect::<Vec<_>>())
}

/// `DequantizeLinear`: codes, scales, zero points.
fn check_columns(operation: &Operation<'_>, config: &ModelConfig) -> Checked {
    let codes = operation.tensor(0)?;
    let ([inputs, outputs], Some(format)) = (codes.dims.as_slice(), WeightFormat::of_codes(codes.element))
    else {
        return operation.refuse("its codes must be a matrix of integers of 4 or 8 bits");
    };
    check_product(operation, config, (*inputs, *outputs))?;
    if operation.integer("axis") != 0 {
        return operation.refuse("its groups must be along the columns");
    }
    let scheme = group_scheme(operation, format.bits() as i64, 1, operation.operands.len() == 3)?;
    let tensors = Encoding::Grouped(scheme, Grouping::AlongColumns).tensors(&codes.dims);
    check_tensors(operation, &(0..).zip(tensors).collect::<Vec<_>>())
}

/// A custom operator.
fn check_custom(operation: &Operation<'_>, config: &ModelConfig, record: &GraphRecord) -> Checked {
    let read = match OperatorNode::read(operation.operator.name, operation.node) {
        Ok(read) => read,
        Err(error) => return operation.refuse(error),
    };
    let schema = read.operator.schema();
    if let Some(AttentionHeads { kv_heads, cache }) = read.heads {
        let expected = config.num_key_value_heads;
        if kv_heads != expected {
            return operation
                .refuse(format_args!("its kv_heads is {kv_heads}, and config.json says {expected}"));
        }
        if Some(cache) != record.kv_cache {
            return operation.refuse(format_args!("its kv_cache is {cache}, unlike what jetmoe.json says"));
        }
        return check_cache(operation, 5);
    }
    let (hidden, kv_width) = (config.hidden_size, config.kv_width());
    match read.operator {
        CustomOperator::RmsNorm => return check_operand(operation, 1, "", ElementType::Float32, &[hidden]),
        CustomOperator::Router => {
            let (found, expected) = (read.experts_per_token, config.num_experts_per_token);
            if found != Some(expected) {
                let found = found.unwrap_or(0);
                return operation.refuse(format_args!("its k is {found}, and config.json says {expected}"));
            }
            let shape = [config.num_local_experts, hidden];
            return check_operand(operation, 1, "", ElementType::Float32, &shape);
        }
        _ => {}
    }
    let mut expected_operands = schema.operands.iter().filter(|operand| operand.tensor().is_none()).count();
    for (slot, layout) in read.weights() {
        let is_of_experts = !matches!(read.operator, CustomOperator::Linear | CustomOperator::Embedding);
        let sizes = match (read.operator, slot) {
            (CustomOperator::Linear, _) if layout.outputs != config.vocab_size => (hidden, 2 * kv_width),
            (CustomOperator::Linear | CustomOperator::Embedding, _) => (hidden, config.vocab_size),
            (CustomOperator::ExpertLinear, _) => (hidden, kv_width),
            (CustomOperator::ExpertLinearSum, _) => (kv_width, hidden),
            (CustomOperator::ExpertMlp, WeightSlot::Down) => (config.intermediate_size, hidden),
            (CustomOperator::ExpertMlp, _) => (hidden, 2 * config.intermediate_size),
            (CustomOperator::Attention | CustomOperator::RmsNorm | CustomOperator::Router, _) => {
                return operation.refuse("it reads no packed weight");
            }
        };
        if (layout.inputs, layout.outputs) != sizes {
            return operation.refuse(format_args!(
                "its weight has {} inputs and {} outputs, and config.json says {} and {}",
                layout.inputs, layout.outputs, sizes.0, sizes.1
            ));
        }
        let index = |role: TensorRole| {
            schema.operands.iter().position(|operand| operand.tensor() == Some((*slot, role)))
        };
        let mut layout = *layout;
        layout.experts = if is_of_experts { config.num_local_experts } else { 1 };
        layout.scheme.zero_points =
            index(TensorRole::ZeroPoints).is_some_and(|index| index < operation.operands.len());
        let tensors = Encoding::Packed(layout).tensors(&[]).into_iter();
        let tensors: Vec<_> = tensors.filter_map(|tensor| Some((index(tensor.role)?, tensor))).collect();
        expected_operands += tensors.len();
        check_tensors(operation, &tensors)?;
    }
    match operation.operands.len() {
        found if found == expected_operands => Ok(()),
        found => operation.refuse(format_args!("it has {found} operands, expected {expected_operands}")),
    }
}

impl Attributes for Node {
    fn integer(&self, name: &str) -> Option<i64> {
        self.attribute.iter().find(|attribute| attribute.name() == name)?.i
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.attribute.iter().find(|attribute| attribute.name() == name)?.f
    }

    fn text(&self, name: &str) -> Option<String> {
        let found = self.attribute.iter().find(|attribute| attribute.name() == name)?;
        String::from_utf8(found.s.clone()?).ok()
    }
}
