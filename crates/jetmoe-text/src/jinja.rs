//! What Jinja has and `minijinja` does not, or has otherwise: text of lists, filters, tests and functions.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};

use crate::limits;

/// Adds them to an environment.
pub(crate) fn add_to(environment: &mut Environment<'_>) {
    minijinja_contrib::add_to_environment(environment);
    environment.set_formatter(format);
    environment.add_filter("center", center);
    environment.add_filter("replace", replace);
    environment.add_filter("string", |value: &Value| to_text(value).map(Value::from));
    environment.add_filter("truncate", truncate);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("wordcount", wordcount);
    environment.add_function("dict", dict);
    environment.add_test("callable", |value: &Value| {
        value.kind() == ValueKind::Plain && value.as_object().is_some()
    });
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map)
}

/// A list or an object is printed as Python prints it.
fn format(output: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if is_container(value) {
        Ok(write!(output, "{}", to_text(value)?)?)
    } else {
        limits::check_depth("str", value)?;
        escape_formatter(output, state, value)
    }
}

/// Python's `str`.
fn to_text(value: &Value) -> Result<String, Error> {
    limits::check_depth("str", value)?;
    if !is_container(value) {
        return Ok(value.to_string());
    }
    let mut text = String::new();
    write_repr(&mut text, value);
    Ok(text)
}

/// Python's `repr`, of a value whose depth is checked.
fn write_repr(text: &mut String, value: &Value) {
    match value.kind() {
        ValueKind::String => write_quoted(text, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            text.push('[');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_repr(text, &item);
            }
            text.push(']');
        }
        ValueKind::Map => {
            text.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_repr(text, &key);
                text.push_str(": ");
                write_repr(text, &value.get_item(&key).unwrap_or_default());
            }
            text.push('}');
        }
        _ => text.push_str(&value.to_string()),
    }
}

fn write_quoted(text: &mut String, string: &str) {
    let quote = if string.contains('\'') && !string.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for character in string.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            character if character == quote => text.extend(['\\', quote]),
            character if character < ' ' || character == '\u{7f}' => {
                text.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            character => text.push(character),
        }
    }
    text.push(quote);
}

/// Limit for the width that a template may request.
const MAX_WIDTH: usize = 10_000;

fn center(text: String, width: Option<usize>) -> String {
    let missing = width.unwrap_or(80).min(MAX_WIDTH).saturating_sub(text.chars().count());
    // as Python's str.center
    let left = missing / 2 + (missing & width.unwrap_or(80) & 1);
    format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left))
}

fn replace(text: String, from: &str, to: &str, count: Option<usize>) -> String {
    match count {
        Some(count) => text.replacen(from, to, count),
        None => text.replace(from, to),
    }
}

fn truncate(text: String, positional: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let mut positional = positional.0.into_iter();
    let mut argument = |name: &str| match positional.next() {
        Some(value) => Ok(Some(value)),
        None => options.get::<Option<Value>>(name),
    };
    let length = argument("length")?.map_or(Ok(255), usize::try_from)?;
    let kill_words = argument("killwords")?.is_some_and(|value| value.is_true());
    let end = argument("end")?.map_or("...".to_owned(), |value| value.to_string());
    let leeway = argument("leeway")?.filter(|value| !value.is_none()).map_or(Ok(5), usize::try_from)?;
    options.assert_all_used()?;
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let kept: String = characters[..length.saturating_sub(end.chars().count())].iter().collect();
    let kept = if kill_words {
        kept.as_str()
    } else {
        kept.rsplit_once(' ').map_or(kept.as_str(), |(words, _)| words)
    };
    Ok(format!("{kept}{end}"))
}

/// Python's `urllib.parse.quote`.
fn urlencode(text: String) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

fn wordcount(text: String) -> usize {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.split(|letter: char| !is_word(letter)).filter(|word| !word.is_empty()).count()
}

/// Python's `dict`: of an object or of pairs, with more keys by name.
fn dict(items: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if let Some(items) = items.filter(|items| !items.is_undefined()) {
        let is_map = items.kind() == ValueKind::Map;
        for item in items.try_iter()? {
            let pair = if is_map { (item.clone(), items.get_item(&item)?) } else { pair_of(&item)? };
            pairs.push(pair);
        }
    }
    for name in named.args().map(str::to_owned).collect::<Vec<_>>() {
        let value: Value = named.get(&name)?;
        pairs.push((Value::from(name), value));
    }
    Ok(pairs.into_iter().collect())
}

fn pair_of(item: &Value) -> Result<(Value, Value), Error> {
    let values: Vec<Value> = item.try_iter()?.collect();
    match <[Value; 2]>::try_from(values) {
        Ok([key, value]) => Ok((key, value)),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, "dict: expected pairs of key and value")),
    }
}
