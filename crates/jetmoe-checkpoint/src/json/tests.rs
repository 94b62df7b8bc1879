#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::Deserialize;
use serde_json::{Value, json};

use super::parse;

fn value(text: &str) -> Value {
    parse(text).unwrap()
}

/// Every text here is accepted by `json.loads` of Python 3.11, except the byte order mark.
#[test]
fn what_python_accepts_is_read() {
    assert_eq!(
        value(r#"{"a": NaN, "b": [Infinity, -Infinity]}"#),
        json!({ "a": "NaN", "b": ["Infinity", "-Infinity"] })
    );
    assert_eq!(
        value(r#"{"a": 1e999, "b": -1e999, "c": 1e300}"#),
        json!({ "a": "Infinity", "b": "-Infinity", "c": 1e300 })
    );
    assert_eq!(value(r#"{"a": 1, "a": 2}"#), json!({ "a": 2 }));
    assert_eq!(
        value(r#"["\ud800", "\udc00x", "\ud83d\ude00", NaN]"#),
        json!(["\u{fffd}", "\u{fffd}x", "😀", "NaN"])
    );
    assert_eq!(value("\u{feff}{}"), json!({}));
    assert_eq!(value(" \r\n\t1000000000000000019884624838656 "), json!(1e30));
}

#[test]
fn strings_are_left_as_they_are() {
    let text = r#"{"NaN": "NaN, Infinity \" -Infinity \\", "x": NaN}"#;
    assert_eq!(value(text), json!({ "NaN": "NaN, Infinity \" -Infinity \\", "x": "NaN" }));
}

#[test]
fn what_python_refuses_is_refused_with_the_place() {
    for text in [
        "",
        "{",
        "{\"a\": nan}",
        "{\"a\": inf}",
        "{\"a\": +1}",
        "{'a': 1}",
        "{\"a\": 1,}",
        "[NaN",
        "\"",
        "\"\\u12",
    ] {
        let error = parse::<Value>(text).unwrap_err();
        assert!(error.is_syntax() || error.is_eof(), "{text}: {error}");
    }
    let error = parse::<Value>("{\n  \"a\": nope\n}").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 9));
}

#[test]
fn a_structure_takes_the_last_of_repeated_keys() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Settings {
        size: u32,
    }
    assert_eq!(parse::<Settings>(r#"{"size": 1, "other": NaN, "size": 2}"#).unwrap(), Settings { size: 2 });
    let error = parse::<Settings>("{\n\"size\": \"large\"}").unwrap_err();
    assert_eq!(error.line(), 2, "{error}");
}
