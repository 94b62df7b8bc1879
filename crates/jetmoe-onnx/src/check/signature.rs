//! Inputs and outputs, by the signature that follows from manifest and configuration.

use std::collections::HashMap;
use std::fmt::Write;

use jetmoe_artifact::{Axis, ElementType, Signature};

use super::initializers::TensorFacts;
use super::{Checked, refuse, shown};
use crate::{DimensionValue, Graph, ShapeDimension, ValueInfo};

/// Compares names, element types and shapes. Inputs and outputs may come in any order.
pub(super) fn check(graph: &Graph, signature: &Signature) -> Checked {
    let inputs = signature.inputs.iter().chain(&signature.optional_inputs);
    let inputs = inputs.map(|spec| (spec.name.to_string(), spec.element, spec.shape.as_slice()));
    compare("input", inputs, &graph.input)?;
    let outputs = signature.outputs.iter();
    let outputs = outputs.map(|spec| (spec.name.to_string(), spec.element, spec.shape.as_slice()));
    compare("output", outputs, &graph.output)
}

fn compare<'a>(
    what: &str,
    expected: impl Iterator<Item = (String, ElementType, &'a [Axis])>,
    found: &[ValueInfo],
) -> Checked {
    let place = |name: &str| format!("{what} {}", shown(name));
    let mut by_name = HashMap::with_capacity(found.len());
    for info in found {
        if by_name.insert(info.name(), info).is_some() {
            return refuse(place(info.name()), "it is declared twice");
        }
    }
    for (name, element, shape) in expected {
        let Some(info) = by_name.remove(name.as_str()) else {
            return refuse(place(&name), "the graph does not have it");
        };
        if !has_type(info, element, shape) {
            let expected = expected_type(element, shape);
            return refuse(place(&name), format_args!("it is {}, expected {expected}", found_type(info)));
        }
    }
    match by_name.into_keys().min() {
        Some(unknown) => refuse(place(unknown), "exported graphs do not have it"),
        None => Ok(()),
    }
}

fn tensor_type(info: &ValueInfo) -> Option<(i32, &[ShapeDimension])> {
    let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
    Some((tensor.elem_type?, &tensor.shape.as_ref()?.dim))
}

fn has_type(info: &ValueInfo, element: ElementType, shape: &[Axis]) -> bool {
    let Some((found, dimensions)) = tensor_type(info) else { return false };
    let has_size = |(found, expected): (&ShapeDimension, &Axis)| match (&found.value, expected) {
        (Some(DimensionValue::DimValue(found)), Axis::Fixed(size)) => usize::try_from(*found) == Ok(*size),
        (Some(DimensionValue::DimParam(_)), Axis::Fixed(_)) => false,
        (Some(DimensionValue::DimParam(name)), axis) => *name == axis.to_string(),
        _ => false,
    };
    found == element as i32 && dimensions.len() == shape.len() && dimensions.iter().zip(shape).all(has_size)
}

fn expected_type(element: ElementType, shape: &[Axis]) -> String {
    let sizes: Vec<String> = shape.iter().map(Axis::to_string).collect();
    format!("{element}[{}]", sizes.join(", "))
}

fn found_type(info: &ValueInfo) -> String {
    /// No input has more; a message does not show more.
    const MOST: usize = 8;
    let Some((element, dimensions)) = tensor_type(info) else { return "of no type".to_owned() };
    let mut text = match ElementType::from_onnx(element) {
        Some(element) => element.to_string(),
        None => format!("elements of type {element}"),
    };
    let size = |dimension: &ShapeDimension| match &dimension.value {
        Some(DimensionValue::DimValue(size)) => size.to_string(),
        Some(DimensionValue::DimParam(name)) if is_plain(name) => name.clone(),
        Some(DimensionValue::DimParam(name)) => shown(name),
        None => "?".to_owned(),
    };
    let mut sizes: Vec<String> = dimensions.iter().take(MOST).map(size).collect();
    if dimensions.len() > MOST {
        sizes.push("…".to_owned());
    }
    // writing to a string does not fail
    let _ = write!(text, "[{}]", sizes.join(", "));
    text
}

/// Whether a name can be shown as it is.
fn is_plain(name: &str) -> bool {
    name.len() < 60 && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_+* ".contains(letter))
}

/// An initializer with the name of an input is its default: zeros, and only an optional input has one.
pub(super) fn check_defaults(tensors: &HashMap<&str, TensorFacts>, signature: &Signature) -> Checked {
    for input in &signature.inputs {
        let name = input.name.to_string();
        if tensors.contains_key(name.as_str()) {
            return refuse(format_args!("tensor {}", shown(&name)), "the input of this name has no default");
        }
    }
    for input in &signature.optional_inputs {
        let name = input.name.to_string();
        let place = || format!("tensor {}", shown(&name));
        let Some(default) = tensors.get(name.as_str()) else {
            return refuse(place(), "the graph does not have it, the default of the input of this name");
        };
        let has_size = |(size, axis): (&usize, &Axis)| match axis {
            Axis::Fixed(expected) => size == expected,
            _ => *size == 0,
        };
        let has_shape =
            default.dims.len() == input.shape.len() && default.dims.iter().zip(&input.shape).all(has_size);
        let is_zero = default.integers.as_ref().is_some_and(|integers| integers.iter().all(|one| *one == 0));
        if !has_shape || !is_zero {
            return refuse(place(), "the default of the input of this name must be zeros in its shape");
        }
    }
    Ok(())
}
