//! Attributes: those of the operator's row in the table, all of them, with values that the operator can have.

use jetmoe_artifact::ElementType;

use super::Checked;
use super::nodes::Operation;
use crate::operators::AttributeKind;
use crate::{Attribute, AttributeType};

/// More axes than any value has.
const MAX_AXES: i64 = 8;

/// Checks the attributes of a node.
pub(super) fn check(operation: &Operation<'_>) -> Checked {
    let expected = &operation.operator.attributes;
    let found = &operation.node.attribute;
    for (index, attribute) in found.iter().enumerate() {
        let name = attribute.name();
        let Some((_, expected)) = expected.iter().find(|(expected, _)| *expected == name) else {
            let name = super::shown(name);
            return operation.refuse(format_args!("exported graphs do not give it the attribute {name}"));
        };
        if found[..index].iter().any(|other| other.name() == name) {
            return operation.refuse(format_args!("it has the attribute {name} twice"));
        }
        if kind_of(attribute) != Some(*expected) {
            return operation.refuse(format_args!("its attribute {name} must be {expected}"));
        }
        check_value(operation, attribute)?;
    }
    let is_missing = |(name, _): &&(&str, AttributeKind)| !found.iter().any(|other| other.name() == *name);
    match expected.iter().find(is_missing) {
        Some((name, _)) => operation.refuse(format_args!("it has no attribute {name}")),
        None => Ok(()),
    }
}

/// What an attribute holds; `None` for nothing, for several values, and for one that is not of its type.
fn kind_of(attribute: &Attribute) -> Option<AttributeKind> {
    let Attribute { name: _, f, i, s, t, ints, r#type } = attribute;
    let (kind, of_type) = match (f, i, s, t, ints.as_slice()) {
        (Some(_), None, None, None, []) => (AttributeKind::Float, AttributeType::Float),
        (None, Some(_), None, None, []) => (AttributeKind::Integer, AttributeType::Int),
        (None, None, Some(_), None, []) => (AttributeKind::Text, AttributeType::String),
        (None, None, None, Some(_), []) => (AttributeKind::Tensor, AttributeType::Tensor),
        (None, None, None, None, [_, ..]) => (AttributeKind::Integers, AttributeType::Ints),
        _ => return None,
    };
    (*r#type == Some(of_type as i32)).then_some(kind)
}

fn check_value(operation: &Operation<'_>, attribute: &Attribute) -> Checked {
    let name = attribute.name();
    let expected = |what: &str| operation.refuse(format_args!("its attribute {name} must be {what}"));
    if let Some(number) = attribute.i {
        return check_integer(operation, name, number);
    }
    if let Some(number) = attribute.f
        && !(number.is_finite() && number > 0.0)
    {
        return expected("positive and finite");
    }
    if attribute.s.as_ref().is_some_and(|text| text.len() > 32 || !text.is_ascii()) {
        return expected("a name");
    }
    if !attribute.ints.is_empty() {
        let mut axes = attribute.ints.clone();
        axes.sort_unstable();
        if axes.len() > MAX_AXES as usize || !axes.iter().copied().eq(0..axes.len() as i64) {
            return expected("an order of axes");
        }
    }
    if let Some(tensor) = &attribute.t {
        let is_filled = |element: &ElementType| element.is_float() || *element == ElementType::Int64;
        let element = ElementType::from_onnx(tensor.data_type()).filter(is_filled);
        let zero = element.map(|element| vec![0; element.bytes(1) as usize]);
        let is_zero = tensor.dims == [1]
            && zero.is_some()
            && tensor.raw_data == zero
            && tensor.external_data.is_empty()
            && tensor.data_location.is_none();
        if !is_zero {
            return expected("one zero, as float32, float16 or int64");
        }
    }
    Ok(())
}

fn check_integer(operation: &Operation<'_>, name: &str, found: i64) -> Checked {
    if name == "to" {
        return match i32::try_from(found).ok().and_then(ElementType::from_onnx) {
            Some(_) => Ok(()),
            None => {
                operation.refuse(format_args!("it casts to type {found}, which exported graphs do not have"))
            }
        };
    }
    let allowed = match name {
        "axis" | "gather_axis" | "quantize_axis" | "start" | "end" => -MAX_AXES..=MAX_AXES,
        "keepdims" | "transB" => 0..=1,
        // pairs of neighbours are never rotated
        "interleaved" => 0..=0,
        "accuracy_level" => 0..=4,
        // sizes
        _ => 1..=i64::from(i32::MAX),
    };
    match allowed.contains(&found) {
        true => Ok(()),
        false => {
            let (least, most) = allowed.into_inner();
            operation.refuse(format_args!("its attribute {name} is {found}, expected {least} to {most}"))
        }
    }
}
