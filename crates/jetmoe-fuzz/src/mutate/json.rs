//! Mutations of JSON: types, sizes, keys, nesting, texts.

use serde_json::{Map, Value, json};

use super::bytes::mutate_bytes;
use crate::Choices;

/// Ends a key that is written without it, so that an object can have a key twice.
const REPEATED: char = '\u{f8ff}';

/// Values deeper than this are not generated; `serde_json` refuses more than 128 levels.
const MAX_DEPTH: usize = 140;

/// A document with more values grows no further by copies of them.
const MAX_VALUES: usize = 5_000;

/// Changes one value, key or element.
pub fn mutate_json(document: &mut Value, choices: &mut Choices<'_>) {
    let mut paths = Vec::new();
    collect_paths(document, &mut Vec::new(), &mut paths);
    let Some(path) = choices.pick(&paths).cloned() else { return };
    let other = choices.pick(&paths).and_then(|path| value_at(document, path)).cloned();
    // a document that is mutated again and again must not grow without end
    let other = other.filter(|_| paths.len() < MAX_VALUES).unwrap_or_default();
    let Some(value) = value_at(document, &path) else { return };
    match value {
        Value::Object(object) if !choices.once_in(4) => mutate_object(object, other, choices),
        Value::Array(array) if !choices.once_in(4) => mutate_array(array, other, choices),
        _ => mutate_value(value, other, choices),
    }
}

/// The text of a document. Keys that [`mutate_json`] repeated are written twice.
pub fn to_text(document: &Value) -> String {
    document.to_string().replace(REPEATED, "")
}

/// Changes a JSON file: up to four values, or, once in ten times, its bytes.
pub fn mutate_json_text(text: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let parsed = serde_json::from_slice::<Value>(text);
    let (Ok(mut document), false) = (parsed, choices.below(10) == 9) else {
        let mut text = text.to_vec();
        mutate_bytes(&mut text, choices);
        return text;
    };
    for _ in 0..=choices.below(4) {
        mutate_json(&mut document, choices);
    }
    to_text(&document).into_bytes()
}

/// The way to a value: indices of elements and of keys.
type JsonPath = Vec<usize>;

fn collect_paths(value: &Value, path: &mut JsonPath, paths: &mut Vec<JsonPath>) {
    // a file of many values is mutated in its first ones and in its outer ones
    const MOST: usize = 20_000;
    if paths.len() >= MOST || path.len() >= MAX_DEPTH {
        return;
    }
    paths.push(path.clone());
    let children: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(array) => Box::new(array.iter()),
        Value::Object(object) => Box::new(object.values()),
        _ => return,
    };
    for (index, child) in children.enumerate() {
        path.push(index);
        collect_paths(child, path, paths);
        path.pop();
    }
}

fn value_at<'v>(value: &'v mut Value, path: &[usize]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, index| match value {
        Value::Array(array) => array.get_mut(*index),
        Value::Object(object) => object.values_mut().nth(*index),
        _ => None,
    })
}

fn mutate_object(object: &mut Map<String, Value>, other: Value, choices: &mut Choices<'_>) {
    let key = object.keys().nth(choices.below(object.len())).cloned().unwrap_or_default();
    match choices.below(6) {
        0 => drop(object.remove(&key)),
        1 => drop(object.insert(format!("{key}{REPEATED}"), other)),
        2 => drop(object.insert(choices.text(&key), other)),
        3 => {
            if let Some(value) = object.shift_remove(&key) {
                object.insert(choices.text(&key), value);
            }
        }
        4 => object.clear(),
        _ => {
            for index in 0..repetitions(&other, choices) {
                object.insert(format!("{key}{index}"), other.clone());
            }
        }
    }
}

fn mutate_array(array: &mut Vec<Value>, other: Value, choices: &mut Choices<'_>) {
    let place = choices.below(array.len());
    match choices.below(6) {
        0 if place < array.len() => drop(array.remove(place)),
        1 => array.insert(place, other),
        2 => {
            if let Some(value) = array.get(place).cloned() {
                array.insert(place, value);
            }
        }
        3 => array.clear(),
        4 => {
            let last = choices.below(array.len());
            if place < array.len() {
                array.swap(place, last);
            }
        }
        _ => {
            let value = array.get(place).cloned().unwrap_or(other);
            let count = repetitions(&value, choices);
            array.extend(std::iter::repeat_n(value, count));
        }
    }
}

/// How often a value is repeated: up to 1024 times, less if it holds others.
fn repetitions(value: &Value, choices: &mut Choices<'_>) -> usize {
    let mut paths = Vec::new();
    collect_paths(value, &mut Vec::new(), &mut paths);
    (1 << choices.below(11)).min(1 + MAX_VALUES / paths.len().max(1))
}

fn mutate_value(value: &mut Value, other: Value, choices: &mut Choices<'_>) {
    let changed = match (&*value, choices.below(6)) {
        // as the type is, mostly
        (Value::Number(number), 0..4) => match (number.as_i64(), choices.below(4)) {
            (Some(integer), 0..3) => json!(choices.integer(integer)),
            (_, choice) => number_of(choice, number.as_f64().unwrap_or(0.0), choices),
        },
        (Value::String(text), 0..4) => json!(choices.text(text)),
        (Value::Bool(bool), 0..4) => json!(!bool),
        (_, 4) => other,
        (current, _) => other_type(current.clone(), choices),
    };
    *value = changed;
}

fn number_of(choice: usize, current: f64, choices: &mut Choices<'_>) -> Value {
    match choice {
        0 => json!(u64::MAX),
        1 => json!(-current),
        2 => json!(f64::from_bits(choices.bits())),
        _ => choices
            .pick(&[0.5, -0.0, 1e-320, 1e38, 1e300, -1e300])
            .map_or(Value::Null, |number| json!(number)),
    }
}

fn other_type(current: Value, choices: &mut Choices<'_>) -> Value {
    match choices.below(11) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(choices.integer(1)),
        3 => json!(-0.5),
        4 => json!(choices.text("text")),
        5 => json!([]),
        6 => json!({}),
        7 => json!([current]),
        8 => json!({ "value": current }),
        9 => nested(current, choices),
        _ => json!(u64::MAX),
    }
}

/// A value inside of lists and objects.
fn nested(value: Value, choices: &mut Choices<'_>) -> Value {
    let is_list = choices.once_in(2);
    (0..choices.below(MAX_DEPTH))
        .fold(value, |value, _| if is_list { json!([value]) } else { json!({ "v": value }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({ "a": { "b": [1, 2, { "c": "text" }], "d": -0.5 }, "e": null, "f": true, "g": [] })
    }

    #[test]
    fn most_seeds_change_a_document() {
        let is_changed = |seed: &u64| {
            let mut changed = document();
            mutate_json(&mut changed, &mut Choices::of_seed(*seed));
            to_text(&changed) != to_text(&document())
        };
        assert!((0..1000).filter(is_changed).count() > 900);
    }

    #[test]
    fn a_document_that_is_mutated_again_and_again_stays_small() {
        for seed in 0..20 {
            let (mut document, mut choices) = (document(), Choices::of_seed(seed));
            for _ in 0..60 {
                mutate_json(&mut document, &mut choices);
            }
            let length = to_text(&document).len();
            assert!(length < 30_000_000, "seed {seed}: {length}");
        }
    }

    #[test]
    fn a_key_can_be_written_twice() {
        let twice = json!({ "key": 1, format!("key{REPEATED}"): 2 });
        assert_eq!(to_text(&twice), r#"{"key":1,"key":2}"#);
    }

    #[test]
    fn a_text_that_is_no_json_is_mutated_too() {
        for seed in 0..100 {
            mutate_json_text(b"", &mut Choices::of_seed(seed));
            mutate_json_text(b"{\"a\":", &mut Choices::of_seed(seed));
            mutate_json_text(b"[[1], {\"a\": 2}]", &mut Choices::of_seed(seed));
        }
    }
}
