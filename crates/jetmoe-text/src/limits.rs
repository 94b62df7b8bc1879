//! Limits of nested values: recursion over them must not overflow the stack.

use serde_json::Value as Json;

/// Most levels of lists and objects in a value that is given to a template. In a text of JSON `serde_json` reads 127.
pub(crate) const MAX_INPUT_DEPTH: usize = 128;

/// Most levels in a value of a template. Python's recursion ends before 1000.
pub(crate) const MAX_DEPTH: usize = 256;

/// Limit for the width that a template may request.
pub(crate) const MAX_WIDTH: usize = 10_000;

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
        let object = |inner| serde_json::json!({ "a": 1, "b": inner });
        assert!(is_within_depth(&object(nested(MAX_INPUT_DEPTH - 1))));
        assert!(!is_within_depth(&object(nested(MAX_INPUT_DEPTH))));
    }
}
