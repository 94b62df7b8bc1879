//! Integer constants: sizes, axes, divisors and counts. A backend computes some of them while it loads a graph, or divides by
//! them.

use std::collections::HashMap;

use jetmoe_artifact::ElementType;
use jetmoe_checkpoint::ModelConfig;

use super::Checked;
use super::initializers::TensorFacts;
use super::nodes::{Operation, Value};

/// What the constants of a graph with some tensors may hold.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// The largest integer. The largest ones in exported graphs are indices of elements of a weight.
    integer: i64,
    /// Elements of a shape, those of the largest weight.
    elements: i64,
}

impl Limits {
    pub(super) fn of(tensors: &HashMap<&str, TensorFacts>) -> Self {
        // 4-bit elements are two per byte
        let elements = tensors.values().map(|facts| facts.size.saturating_mul(2)).max().unwrap_or(0);
        let elements = i64::try_from(elements).unwrap_or(i64::MAX);
        Limits { integer: elements.max(i64::from(i32::MAX)), elements }
    }
}

/// Checks the constants that a node reads.
pub(super) fn check(operation: &Operation<'_>, config: &ModelConfig, limits: Limits) -> Checked {
    let largest = limits.integer;
    let name = operation.operator.name;
    for (index, operand) in operation.operands.iter().enumerate() {
        let Value::Tensor(TensorFacts { integers: Some(integers), .. }) = operand else { continue };
        // the end of a slice that has none
        let is_open_end = |number: i64| name == "Slice" && index == 2 && number == i64::MAX;
        let is_wrong = |number: &&i64| !((-1..=largest).contains(*number) || is_open_end(**number));
        if let Some(number) = integers.iter().find(is_wrong) {
            return operation
                .refuse(format_args!("its operand {index} holds {number}, at most {largest} expected"));
        }
    }
    if operation.is_constant() {
        return check_constant(operation);
    }
    match name {
        "Div" => check_divisor(operation),
        "Range" => check_range(operation),
        "Reshape" => match operation.operands.get(1) {
            Some(Value::Tensor(TensorFacts { integers: None, .. })) => {
                operation.refuse("its sizes are a weight")
            }
            sizes => sizes.map_or(Ok(()), |sizes| check_sizes(operation, sizes, limits.elements)),
        },
        // parts of shapes that depend on the step
        "Concat" => {
            operation.operands.iter().try_for_each(|part| check_sizes(operation, part, limits.elements))
        }
        "TopK" => match operation.integers(1)? {
            [count] if usize::try_from(*count) == Ok(config.num_experts_per_token) => Ok(()),
            counts => {
                let expected = config.num_experts_per_token;
                let found = counts.first().copied().unwrap_or_default();
                operation.refuse(format_args!("it takes the best {found}, and config.json says {expected}"))
            }
        },
        "Split" => match operation.integers(1)? {
            [first, second] if first == second && *first > 0 => Ok(()),
            _ => operation.refuse("it must make two equal parts"),
        },
        "CumSum" | "Squeeze" | "Unsqueeze" | "ReduceMax" | "ReduceMean" | "ReduceSum" => {
            operation.integers(1).map(|_| ())
        }
        "Slice" => operation.integers(3).map(|_| ()),
        _ => Ok(()),
    }
}

/// A backend computes a node without inputs while it loads the graph, whatever the size of its result. Exported graphs only
/// convert weights, which have a size in the data file.
fn check_constant(operation: &Operation<'_>) -> Checked {
    match operation.operator.name {
        "DequantizeLinear" => Ok(()),
        "Cast" => {
            let is_float = |element| {
                matches!(element, ElementType::Float32 | ElementType::Float16 | ElementType::BFloat16)
            };
            let to = i32::try_from(operation.integer("to")).ok().and_then(ElementType::from_onnx);
            match (operation.tensor(0)?.element, to) {
                (from, Some(to)) if is_float(from) && is_float(to) => Ok(()),
                (from, _) => {
                    operation.refuse(format_args!("a weight of {from} is not converted in exported graphs"))
                }
            }
        }
        _ => operation.refuse("it depends on no input"),
    }
}

/// Ranges count the tokens of a step. From another start, a backend may take a negative length for a large one.
fn check_range(operation: &Operation<'_>) -> Checked {
    match (operation.integers(0)?, operation.integers(2)?) {
        ([0], [1]) => Ok(()),
        ([0], step) => operation.refuse(format_args!("its step is {step:?}, expected 1")),
        (start, _) => operation.refuse(format_args!("it begins at {start:?}, expected 0")),
    }
}

/// A backend takes the sizes of a shape for those of what is computed from it, ranges included, which it computes while it loads a
/// graph.
fn check_sizes(operation: &Operation<'_>, sizes: &Value<'_>, most: i64) -> Checked {
    let Value::Tensor(TensorFacts { integers: Some(sizes), .. }) = sizes else { return Ok(()) };
    let elements = sizes.iter().fold(1, |elements: i64, size| elements.saturating_mul((*size).max(1)));
    match elements <= most {
        true => Ok(()),
        false => {
            operation.refuse(format_args!("its sizes {sizes:?} hold more elements than the largest weight"))
        }
    }
}

/// Whether other values may be divided by the result of a node: floating-point numbers by a square root, integers by the larger
/// one of a number and a positive constant.
pub(super) fn is_divisor(operation: &Operation<'_>) -> bool {
    let is_positive = |operand: &Value<'_>| match operand {
        Value::Tensor(TensorFacts { integers: Some(integers), .. }) => {
            integers.iter().all(|number| *number > 0)
        }
        _ => false,
    };
    match operation.operator.name {
        "Sqrt" => true,
        "Max" => operation.operands.iter().any(is_positive),
        _ => false,
    }
}

/// Values are divided by positive constants, or by what [`is_divisor`] allows.
fn check_divisor(operation: &Operation<'_>) -> Checked {
    match operation.operands.get(1) {
        Some(Value::Computed { is_divisor: true, .. }) => Ok(()),
        _ => match operation.integers(1)?.iter().all(|divisor| *divisor > 0) {
            true => Ok(()),
            false => operation.refuse("its divisor must be positive"),
        },
    }
}
