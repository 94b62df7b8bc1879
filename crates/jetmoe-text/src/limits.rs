//! Limits of nested values: recursion over them must not overflow the stack.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// Most levels of lists and objects in a value that is given to a template. In a text of JSON `serde_json` reads 127.
pub(crate) const MAX_INPUT_DEPTH: usize = 128;

/// Most levels in a value that a template prints or writes as JSON. Python's recursion ends before 1000.
const MAX_DEPTH: usize = 256;

/// The error of a template that goes deeper; `operation` names what it does.
fn too_deep(operation: &str) -> Error {
    let message =
        format!("{operation}: the value is nested deeper than {MAX_DEPTH} levels, or contains itself");
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Whether a value has at most [`MAX_INPUT_DEPTH`] levels. It looks at no level beyond.
pub(crate) fn is_within_depth(value: &Json) -> bool {
    has_levels(value, MAX_INPUT_DEPTH)
}

fn has_levels(value: &Json, levels: usize) -> bool {
    match value {
        Json::Array(list) => levels > 0 && list.iter().all(|item| has_levels(item, levels - 1)),
        Json::Object(object) => levels > 0 && object.values().all(|item| has_levels(item, levels - 1)),
        _ => true,
    }
}

/// Refuses a value of a template with more than [`MAX_DEPTH`] levels, such as a namespace that contains itself.
pub(crate) fn check_depth(operation: &str, value: &Value) -> Result<(), Error> {
    check_levels(operation, value, MAX_DEPTH)
}

fn check_levels(operation: &str, value: &Value, levels: usize) -> Result<(), Error> {
    let is_map = match value.kind() {
        ValueKind::Map => true,
        ValueKind::Seq | ValueKind::Iterable => false,
        _ => return Ok(()),
    };
    if levels == 0 {
        return Err(too_deep(operation));
    }
    // what cannot be iterated is written without items
    for item in value.try_iter().into_iter().flatten() {
        check_levels(operation, &item, levels - 1)?;
        if is_map {
            check_levels(operation, &value.get_item(&item)?, levels - 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list in a list, and so on.
    fn nested(levels: usize) -> Json {
        (0..levels).fold(Json::Null, |inner, _| Json::Array(vec![inner]))
    }

    #[test]
    fn the_last_level_is_within_the_limit() {
        for (levels, is_valid) in [(0, true), (MAX_INPUT_DEPTH, true), (MAX_INPUT_DEPTH + 1, false)] {
            assert_eq!(is_within_depth(&nested(levels)), is_valid, "{levels}");
        }
        for (levels, is_valid) in [(0, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
            let value = Value::from_serialize(nested(levels));
            assert_eq!(check_depth("test", &value).is_ok(), is_valid, "{levels}");
        }
        let object = |inner| serde_json::json!({ "a": 1, "b": inner });
        assert!(is_within_depth(&object(nested(MAX_INPUT_DEPTH - 1))));
        assert!(!is_within_depth(&object(nested(MAX_INPUT_DEPTH))));
        assert!(check_depth("test", &Value::from_serialize(object(nested(MAX_DEPTH - 1)))).is_ok());
        assert!(check_depth("test", &Value::from_serialize(object(nested(MAX_DEPTH)))).is_err());
    }
}
