//! What templates expect of Python: `json.dumps`, `strftime`, and methods of strings.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, State, Value};
use serde_json::Value as Json;

use crate::engine::budget::{self, Text};
use crate::engine::values::failed;
use crate::jinja;
use crate::limits::MAX_WIDTH;

/// transformers' filter `tojson`: `json.dumps(x, ensure_ascii, indent, separators, sort_keys)`.
pub(crate) fn to_json(value: Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let json: Json = serde_json::to_value(&value).map_err(|error| failed(format!("tojson: {error}")))?;
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.or(ensure_ascii).unwrap_or(false);
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(" ".repeat(usize::try_from(value).unwrap_or(0).min(MAX_INDENT))),
        },
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }, ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(other) => return Err(failed(format!("tojson: {} separators, expected two", other.len()))),
    };
    let writer = JsonWriter { ensure_ascii, indent: indent.as_deref(), item, key, sort_keys };
    let mut text = Text::default();
    writer.write(&mut text, &json, 0);
    text.finish()
}

/// Limit for the indentation that a template may request.
const MAX_INDENT: usize = 100;

/// Python's `json.dumps`.
struct JsonWriter<'a> {
    ensure_ascii: bool,
    indent: Option<&'a str>,
    item: &'a str,
    key: &'a str,
    sort_keys: bool,
}

impl JsonWriter<'_> {
    fn write(&self, text: &mut Text, value: &Json, depth: usize) {
        match value {
            Json::Null => text.push_str("null"),
            Json::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
            Json::Number(number) => text.push_str(&python_number(number)),
            Json::String(string) => self.write_string(text, string),
            Json::Array(list) if list.is_empty() => text.push_str("[]"),
            Json::Object(object) if object.is_empty() => text.push_str("{}"),
            Json::Array(list) => {
                text.push('[');
                for (index, value) in list.iter().enumerate() {
                    self.begin_item(text, index, depth + 1);
                    self.write(text, value, depth + 1);
                }
                self.new_line(text, depth);
                text.push(']');
            }
            Json::Object(object) => {
                let mut entries: Vec<_> = object.iter().collect();
                if self.sort_keys {
                    entries.sort_by(|a, b| a.0.chars().cmp(b.0.chars()));
                }
                text.push('{');
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    self.begin_item(text, index, depth + 1);
                    self.write_string(text, key);
                    text.push_str(self.key);
                    self.write(text, value, depth + 1);
                }
                self.new_line(text, depth);
                text.push('}');
            }
        }
    }

    fn begin_item(&self, text: &mut Text, index: usize, depth: usize) {
        if index > 0 {
            text.push_str(self.item);
        }
        self.new_line(text, depth);
    }

    fn new_line(&self, text: &mut Text, depth: usize) {
        if let Some(indent) = self.indent {
            text.push('\n');
            (0..depth).for_each(|_| text.push_str(indent));
        }
    }

    fn write_string(&self, text: &mut Text, string: &str) {
        text.push('"');
        for character in string.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                character if character < ' ' || (self.ensure_ascii && !character.is_ascii()) => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                character => text.push(character),
            }
        }
        text.push('"');
    }
}

/// Python's `repr` of a number.
fn python_number(number: &serde_json::Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    if float != 0.0 && !(1e-4..1e16).contains(&float.abs()) {
        let scientific = format!("{float:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{float}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// transformers' function `strftime_now`: the local time.
pub(crate) fn strftime_now(format: &str) -> Result<String, Error> {
    // a letter of the format is a text of at most 64 bytes
    budget::require(format.len() as u64 * 64)?;
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format))
        .map_err(|_| failed(format!("strftime_now: {format:?} is not a format of strftime")))?;
    Ok(text)
}

/// Python's methods of strings that `minijinja_contrib` does not have.
pub(crate) fn call_method(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == "index" {
        return index_of(value, args);
    }
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        let cut = |cut: fn(&'_ str, &'_ str) -> Option<String>| -> Result<Value, Error> {
            let (part,): (&str,) = from_args(args)?;
            Ok(Value::from(cut(text, part).unwrap_or_else(|| text.to_owned())))
        };
        match method {
            "removeprefix" => return cut(|text, prefix| text.strip_prefix(prefix).map(str::to_owned)),
            "removesuffix" => return cut(|text, suffix| text.strip_suffix(suffix).map(str::to_owned)),
            "partition" => {
                let (separator,): (&str,) = from_args(args)?;
                let parts = match text.split_once(separator) {
                    Some((before, after)) => [before, separator, after],
                    None => [text, "", ""],
                };
                return Ok(texts(&parts));
            }
            "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                let parts = match text.rsplit_once(separator) {
                    Some((before, after)) => [before, separator, after],
                    None => ["", "", text],
                };
                return Ok(texts(&parts));
            }
            "replace" => {
                let (from, to, count): (&str, &str, Option<i64>) = from_args(args)?;
                let count = count.and_then(|count| usize::try_from(count).ok());
                return jinja::replace(text.to_owned(), from, to, count).map(Value::from);
            }
            "join" => {
                let (items,): (&Value,) = from_args(args)?;
                let mut joined = Text::default();
                for (index, item) in items.try_iter()?.enumerate() {
                    joined.push_str(if index > 0 { text } else { "" });
                    // the text has an error of its own
                    let _ = write!(joined, "{item}");
                }
                return joined.finish().map(Value::from);
            }
            "format" => {
                let arguments: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
                jinja::check_format(&arguments)?;
            }
            "rsplit" => {
                let (separator, limit): (&str, Option<i64>) = from_args(args)?;
                let limit =
                    limit.and_then(|limit| usize::try_from(limit).ok()).map_or(usize::MAX, |limit| limit + 1);
                let mut parts: Vec<&str> = text.rsplitn(limit, separator).collect();
                parts.reverse();
                return Ok(texts(&parts));
            }
            "swapcase" => {
                let swapped = text.chars().map(|letter| {
                    if letter.is_uppercase() {
                        letter.to_lowercase().to_string()
                    } else {
                        letter.to_uppercase().to_string()
                    }
                });
                return Ok(Value::from(swapped.collect::<String>()));
            }
            "zfill" => {
                let (width,): (usize,) = from_args(args)?;
                let (sign, digits) = match text.strip_prefix(['-', '+']) {
                    Some(digits) => (&text[..1], digits),
                    None => ("", text),
                };
                let missing = width.min(MAX_WIDTH).saturating_sub(text.chars().count());
                return Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(missing))));
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `str.index` and `list.index`.
fn index_of(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (Value,) = from_args(args)?;
    let index = match (value.as_str(), wanted.as_str()) {
        (Some(text), Some(part)) => text.find(part).map(|place| text[..place].chars().count()),
        _ => value.try_iter()?.position(|item| item == wanted),
    };
    index.map(Value::from).ok_or_else(|| failed(format!("index: {wanted} was not found")))
}

fn texts(parts: &[&str]) -> Value {
    parts.iter().map(|part| Value::from(*part)).collect()
}
