//! Nodes of the custom operators: any attributes and any operands compute or are refused.
#![no_main]

use std::collections::BTreeMap;

use half::f16;
use jetmoe_backend::operator::{CacheTensor, Elements, ElementsMut, OperandValue, Operator};
use jetmoe_format::{
    AttentionHeads, Attribute, Attributes, CacheFormat, CustomOperator, ElementType, Operand, OperatorNode,
    OperatorSchema, PackedLayout, TensorRole, WeightSlot,
};
use jetmoe_fuzz::Choices;
use jetmoe_kernels::{CallingThread, ExecContext, Isa};
use libfuzzer_sys::fuzz_target;

/// Larger tensors are not made: elements.
const MAX_ELEMENTS: usize = 1 << 20;

#[derive(Debug, Default)]
struct Node {
    integers: BTreeMap<&'static str, i64>,
    epsilon: Option<f32>,
    activation: Option<String>,
    cache: Option<String>,
}

impl Attributes for Node {
    fn integer(&self, name: &str) -> Option<i64> {
        self.integers.get(name).copied()
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.epsilon.filter(|_| name == Attribute::Epsilon.name())
    }

    fn text(&self, name: &str) -> Option<String> {
        let activation = self.activation.clone().filter(|_| name == Attribute::Activation.name());
        activation.or_else(|| self.cache.clone().filter(|_| name == Attribute::KvCache.name()))
    }
}

/// Sizes of a step.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    k: usize,
    experts: usize,
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::of_bytes(input);
    let schemas: Vec<&OperatorSchema> = OperatorSchema::all().collect();
    let Some(schema) = choices.pick(&schemas).copied() else { return };
    let sizes = Sizes { rows: choices.below(6), k: 1 + choices.below(2), experts: 2 + choices.below(3) };
    let is_valid = choices.once_in(2);
    let node = attributes(schema, is_valid, &mut choices);
    let name = schema.operator.name();
    let (Ok(operator), Ok(read)) = (Operator::new(name, &node), OperatorNode::read(name, &node)) else {
        assert!(!is_valid, "{node:?}");
        return;
    };
    if let Some(heads) = read.heads {
        return attend(&operator, heads, is_valid, &mut choices);
    }
    let mut operands = Vec::new();
    for operand in schema.operands {
        let Some(mut buffer) = Buffer::of(*operand, &read, sizes, &mut choices) else { return };
        if !is_valid && choices.once_in(4) {
            buffer.mutate(&mut choices);
        }
        operands.push(buffer);
    }
    if !is_valid && choices.once_in(8) {
        operands.truncate(choices.below(operands.len()));
    }
    let values: Vec<OperandValue<'_>> = operands.iter().map(Buffer::value).collect();
    let bound = match operator.bind(&values) {
        Ok(bound) => bound,
        Err(error) => return assert!(!is_valid, "{error}: {node:?} {sizes:?}"),
    };
    let sizes_of =
        |shape: &[usize]| shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let results: Option<Vec<(ElementType, usize)>> = bound
        .results()
        .map(|(element, shape)| {
            Some((element, sizes_of(shape).filter(|elements| *elements <= MAX_ELEMENTS)?))
        })
        .collect();
    let Some(results) = results else { return };
    for isa in Isa::available() {
        let context = ExecContext { isa, threads: &CallingThread };
        let floats = |count: usize| vec![0.0; count];
        let (mut floats, mut integers): (Vec<Vec<f32>>, Vec<Vec<i64>>) =
            results.iter().map(|(_, elements)| (floats(*elements), vec![0; *elements])).unzip();
        let memory = results.iter().zip(floats.iter_mut().zip(&mut integers));
        let mut memory: Vec<ElementsMut<'_>> = memory
            .map(|((element, _), (floats, integers))| match element {
                ElementType::Int64 => ElementsMut::Int64(integers),
                _ => ElementsMut::Float32(floats),
            })
            .collect();
        let computed = bound.compute(context, &mut memory);
        assert!(computed.is_ok() || !is_valid, "{computed:?}: {node:?} {sizes:?}");
    }
});

/// Attributes of a node; of one that is not valid, some have any value or none.
fn attributes(schema: &OperatorSchema, is_valid: bool, choices: &mut Choices<'_>) -> Node {
    let cache = choices.pick(CacheFormat::ALL).map(|format| format.name().to_owned());
    let mut node = Node { activation: Some("silu".to_owned()), cache, ..Node::default() };
    for attribute in schema.attributes {
        let value = match attribute {
            Attribute::Activation | Attribute::KvCache => continue,
            Attribute::Epsilon => {
                let wrong = [0.0, -1.0, f32::NAN, f32::INFINITY];
                node.epsilon = match is_valid || !choices.once_in(4) {
                    true => Some(1e-6),
                    false => choices.pick(&wrong).copied(),
                };
                continue;
            }
            Attribute::ExpertsPerToken => Some(1 + choices.below(2) as i64),
            Attribute::Bits(_) => choices.pick(&[4, 8, 16]).copied(),
            Attribute::KvHeads => Some(1 + choices.below(4) as i64),
            Attribute::GroupSize(_) => choices.pick(&[16, 32, 64, 128]).copied(),
            _ => Some(1 + choices.below(80) as i64),
        };
        let value = value.filter(|_| is_valid || !choices.once_in(16));
        if let Some(value) = value {
            let value = if is_valid || !choices.once_in(4) { value } else { choices.integer(value) };
            node.integers.insert(attribute.name(), value);
        }
    }
    if !is_valid && choices.once_in(8) {
        node.activation = Some(choices.text("silu"));
        node.cache = Some(choices.text("int8"));
    }
    node
}

/// A step of attention.
fn attend(operator: &Operator, heads: AttentionHeads, is_valid: bool, choices: &mut Choices<'_>) {
    let AttentionHeads { kv_heads, cache } = heads;
    let (batch, new, cached) = (1 + choices.below(3), choices.below(4), choices.below(5));
    let (channels, slots) = (2 + 2 * choices.below(20), 1 + choices.below(2));
    let (tokens, capacity) = (batch * new, cached + new + choices.below(2));
    let Some(width) = kv_heads.checked_mul(channels).filter(|width| *width <= 4096) else { return };
    let value = [1.0, 0.0, f32::NAN, f32::MAX][choices.below(4)];
    let floats = |rows: usize, columns: usize| Buffer {
        shape: vec![rows, columns],
        elements: OwnedElements::Float32(vec![value; rows * columns]),
    };
    let columns = cached + new;
    let mask = (0..batch * columns).map(|_| choices.below(2) as i64).collect();
    // every sequence in another row, the last one in two parts
    let mut list = Vec::new();
    if tokens > 0 && choices.once_in(2) {
        for row in (0..batch).rev() {
            let first = if row == 0 { choices.below(new + 1) } else { new };
            list.extend([row, cached, first].map(|number| number as i64));
            if row == 0 {
                list.extend([row, cached + first, new - first].map(|number| number as i64));
            }
        }
    }
    let mut operands = vec![
        floats(tokens * slots, width),
        floats(tokens, 2 * width),
        floats(tokens, channels / 2),
        floats(tokens, channels / 2),
        Buffer { shape: vec![batch, columns], elements: OwnedElements::Int64(mask) },
        Buffer { shape: vec![list.len() / 3, 3], elements: OwnedElements::Int64(list) },
    ];
    if !is_valid {
        for operand in &mut operands {
            if choices.once_in(4) {
                operand.mutate(choices);
            }
        }
        if choices.once_in(8) {
            operands.truncate(choices.below(operands.len()));
        }
    }
    let values: Vec<OperandValue<'_>> = operands.iter().map(Buffer::value).collect();
    let step = match operator.bind_attention(&values) {
        Ok(step) => step,
        Err(error) => return assert!(!is_valid, "{error}: {heads:?}"),
    };
    let elements = step.shape().iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let Some(elements) = elements.filter(|elements| *elements <= MAX_ELEMENTS) else { return };
    let Some(row_bytes) = cache.row_bytes(channels) else { return };
    let shape = [batch, kv_heads, capacity, row_bytes];
    for isa in Isa::available() {
        let context = ExecContext { isa, threads: &CallingThread };
        let (mut keys, mut values) = (vec![0; shape.iter().product()], vec![0; shape.iter().product()]);
        let tensors = [&mut keys, &mut values].map(|bytes| CacheTensor { shape: shape.to_vec(), bytes });
        let computed = step.compute(context, tensors, &mut vec![0.0; elements]);
        assert!(computed.is_ok() || !is_valid, "{computed:?}: {heads:?}");
    }
}

/// An operand with its elements.
#[derive(Debug)]
struct Buffer {
    shape: Vec<usize>,
    elements: OwnedElements,
}

#[derive(Debug)]
enum OwnedElements {
    Float32(Vec<f32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    Float16(Vec<f16>),
}

impl Buffer {
    /// The operand that a node takes; `None` if it has too many elements.
    fn of(operand: Operand, node: &OperatorNode, sizes: Sizes, choices: &mut Choices<'_>) -> Option<Self> {
        let Sizes { rows, k, experts } = sizes;
        let operator = node.operator;
        let has = |wanted| operator.schema().operands.contains(&wanted);
        // without experts there is one matrix
        let matrices = if has(Operand::Experts) { experts } else { 1 };
        let layout = |slot| Some(PackedLayout { experts: matrices, ..node.layout(slot).ok()? });
        if let Some((slot, role)) = operand.tensor() {
            let layout = layout(slot)?;
            let shape = if role == TensorRole::Codes { layout.codes_shape() } else { layout.scales_shape() };
            let count = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
            if count > MAX_ELEMENTS {
                return None;
            }
            // a format without groups has neither
            let is_absent = role != TensorRole::Codes && layout.group_size().is_none();
            let (shape, count) = if is_absent { (vec![0], 0) } else { (shape.to_vec(), count) };
            let byte = choices.below(256) as u8;
            let elements = match role {
                TensorRole::Scales => OwnedElements::Float16(vec![f16::from_f32(0.5); count]),
                _ => OwnedElements::UInt8(vec![byte & 0x0f; count]),
            };
            return Some(Buffer { shape, elements });
        }
        if matches!(operator, CustomOperator::RmsNorm | CustomOperator::Router) {
            let width = 1 + sizes.rows + 7 * sizes.k;
            let shape = match operand {
                Operand::NormWeight => vec![width],
                Operand::RouterWeight => vec![experts, width],
                _ => vec![rows, width],
            };
            let value = [1.0, 0.0, f32::NAN, f32::MAX][choices.below(4)];
            let elements = OwnedElements::Float32(vec![value; shape.iter().product()]);
            return Some(Buffer { shape, elements });
        }
        let first = operator.schema().weights().next().unwrap_or(WeightSlot::Only);
        let (inputs, outputs) = (node.layout(first).ok()?.inputs, node.layout(first).ok()?.outputs);
        Some(match operand {
            Operand::X => {
                // a row for each selected expert, where rows are summed afterwards
                let rows = if operator == CustomOperator::ExpertLinearSum { rows * k } else { rows };
                let count = rows.checked_mul(inputs).filter(|count| *count <= MAX_ELEMENTS)?;
                let value = [1.0, 0.0, f32::NAN, f32::MAX][choices.below(4)];
                Buffer { shape: vec![rows, inputs], elements: OwnedElements::Float32(vec![value; count]) }
            }
            Operand::Gates => {
                Buffer { shape: vec![rows, k], elements: OwnedElements::Float32(vec![0.5; rows * k]) }
            }
            Operand::Ids => {
                let ids = (0..rows).map(|_| choices.below(outputs) as i64).collect();
                Buffer { shape: vec![rows], elements: OwnedElements::Int64(ids) }
            }
            _ => {
                let ids = (0..rows * k).map(|index| (index % k) as i64).collect();
                Buffer { shape: vec![rows, k], elements: OwnedElements::Int64(ids) }
            }
        })
    }

    /// Changes shape, length, type or elements.
    fn mutate(&mut self, choices: &mut Choices<'_>) {
        let length = choices.below(40);
        match choices.below(5) {
            0 => self.shape.push(choices.below(3)),
            1 => drop(self.shape.pop()),
            2 => {
                if let Some(size) = choices.pick_mut(&mut self.shape) {
                    *size = choices.integer(*size as i64) as usize;
                }
            }
            3 => {
                self.elements = match choices.below(4) {
                    0 => OwnedElements::Float32(vec![1.0; length]),
                    1 => OwnedElements::Int64(vec![1; length]),
                    2 => OwnedElements::UInt8(vec![1; length]),
                    _ => OwnedElements::Float16(vec![f16::ONE; length]),
                }
            }
            _ => {
                if let OwnedElements::Int64(elements) = &mut self.elements
                    && let Some(element) = choices.pick_mut(elements)
                {
                    *element = choices.integer(*element);
                }
            }
        }
    }

    fn value(&self) -> OperandValue<'_> {
        let elements = match &self.elements {
            OwnedElements::Float32(elements) => Elements::Float32(elements),
            OwnedElements::Int64(elements) => Elements::Int64(elements),
            OwnedElements::UInt8(elements) => Elements::UInt8(elements),
            OwnedElements::Float16(elements) => Elements::Float16(elements),
        };
        OperandValue { shape: self.shape.clone(), elements }
    }
}
