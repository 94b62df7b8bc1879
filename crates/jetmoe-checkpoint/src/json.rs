//! JSON as Python's `json` module reads it, which wrote and reads most of the files of a checkpoint.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses JSON with what Python's `json` module accepts beyond the standard: `NaN`, `Infinity`, `-Infinity`, numbers beyond
/// the range of float64, half of a surrogate pair in a string, and a repeated key, of which the last one counts. Also
/// ignores a byte order mark, which Python refuses.
///
/// What is not a finite number becomes a string, such as `"NaN"`, so that a key that needs a number reports it.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // through a value, because a structure refuses a repeated key
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value) => value,
        // the message for the text as it is, unless the standard alone is what it does not meet
        Err(error) => match standardize(text).map(|text| serde_json::from_str(&text)) {
            Some(Ok(value)) => value,
            _ => return Err(error),
        },
    };
    // a number in a string has no place in a structure, so the text is parsed again for an error with line and column
    T::deserialize(&value).map_err(|error| serde_json::from_str::<T>(text).err().unwrap_or(error))
}

/// The text in standard JSON; `None` if there is nothing to replace.
fn standardize(text: &str) -> Option<String> {
    let mut result = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut is_changed = false;
    while let Some(first) = rest.chars().next() {
        let (length, replacement) = match first {
            '"' => {
                let length = string_length(rest);
                let (string, replaced) = replace_lone_surrogates(&rest[..length]);
                (length, replaced.then_some(string))
            }
            '-' | '0'..='9' | 'A'..='Z' | 'a'..='z' => {
                let is_part = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
                let length = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
                (length, non_finite(&rest[..length]).map(|name| format!("\"{name}\"")))
            }
            other => (other.len_utf8(), None),
        };
        is_changed |= replacement.is_some();
        result.push_str(replacement.as_deref().unwrap_or(&rest[..length]));
        rest = &rest[length..];
    }
    is_changed.then_some(result)
}

/// Python's name of a literal that is not a finite number; `None` for any other word.
fn non_finite(word: &str) -> Option<&'static str> {
    let is_number = word.trim_start_matches('-').starts_with(|letter: char| letter.is_ascii_digit());
    match word {
        "NaN" => Some("NaN"),
        "Infinity" => Some("Infinity"),
        "-Infinity" => Some("-Infinity"),
        _ if !is_number => None,
        number => match number.parse::<f64>() {
            Ok(value) if value == f64::INFINITY => Some("Infinity"),
            Ok(value) if value == f64::NEG_INFINITY => Some("-Infinity"),
            _ => None,
        },
    }
}

/// Bytes of the string literal that the text begins with, quotes included; to the end of the text if it does not end.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// A string literal whose halves of surrogate pairs are replacement characters, and whether there were any.
fn replace_lone_surrogates(literal: &str) -> (String, bool) {
    let mut result = String::with_capacity(literal.len());
    let mut rest = literal;
    let mut is_changed = false;
    while let Some(start) = rest.find('\\') {
        let (before, escape) = rest.split_at(start);
        result.push_str(before);
        let length = match surrogate(escape) {
            Some(Surrogate::High) if matches!(surrogate(&escape[6..]), Some(Surrogate::Low)) => 12,
            Some(_) => {
                result.push_str("\\ufffd");
                is_changed = true;
                rest = &escape[6..];
                continue;
            }
            // a backslash and the escaped character
            None => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
        };
        result.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    result.push_str(rest);
    (result, is_changed)
}

enum Surrogate {
    High,
    Low,
}

/// Which half of a surrogate pair the text begins with, as `\uXXXX`.
fn surrogate(text: &str) -> Option<Surrogate> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xD800..=0xDBFF => Some(Surrogate::High),
        0xDC00..=0xDFFF => Some(Surrogate::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
