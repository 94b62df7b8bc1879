//! What Jinja has and `minijinja` does not, or has otherwise: text of lists, filters, tests and functions.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter, filters};

use crate::engine::budget::{self, Text};
use crate::engine::values::{self, Namespace, is_container};
use crate::limits::MAX_WIDTH;

/// Adds them to an environment.
pub(crate) fn add_to(environment: &mut Environment<'_>) {
    minijinja_contrib::add_to_environment(environment);
    environment.set_formatter(format);
    environment.remove_global("debug");
    environment.add_filter("batch", checked(Value::from_function(filters::batch), check_count));
    environment.add_filter("center", center);
    environment.add_filter("format", checked(Value::from_function(filters::format), check_format));
    environment.add_filter("indent", checked(Value::from_function(filters::indent), check_indent));
    environment.add_filter("join", checked(Value::from_function(filters::join), check_join));
    environment.add_filter("pprint", pprint);
    environment.add_filter("replace", replace);
    environment.add_filter("slice", checked(Value::from_function(filters::slice), check_count));
    environment.add_filter("string", |value: &Value| to_text(value).map(Value::from));
    environment.add_filter("truncate", truncate);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("wordcount", wordcount);
    environment.add_function("cycler", cycler);
    environment.add_function("dict", dict);
    environment.add_function("joiner", |separator: Option<String>| {
        minijinja_contrib::globals::joiner(separator.map(Value::from))
    });
    environment.add_function("namespace", namespace);
    environment.add_test("callable", |value: &Value| {
        value.kind() == ValueKind::Plain && value.as_object().is_some()
    });
}

/// A list or an object is printed as Python prints it.
fn format(output: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if is_container(value) {
        Ok(write!(output, "{}", to_text(value)?)?)
    } else {
        budget::create(values::size(value))?;
        escape_formatter(output, state, value)
    }
}

/// Python's `str`.
fn to_text(value: &Value) -> Result<String, Error> {
    let mut text = Text::default();
    if is_container(value) {
        write_repr(&mut text, value);
    } else {
        // the text has an error of its own
        let _ = write!(text, "{value}");
    }
    text.finish()
}

/// Python's `repr`, of a value whose depth is checked.
fn write_repr(text: &mut Text, value: &Value) {
    match value.kind() {
        _ if text.is_full() => {}
        ValueKind::String => write_quoted(text, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
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

fn write_quoted(text: &mut Text, string: &str) {
    let quote = if string.contains('\'') && !string.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for character in string.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            character if character == quote => {
                text.push('\\');
                text.push(quote);
            }
            character if character < ' ' || character == '\u{7f}' => {
                text.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            character => text.push(character),
        }
    }
    text.push(quote);
}

fn center(text: String, width: Option<usize>) -> String {
    let missing = width.unwrap_or(80).min(MAX_WIDTH).saturating_sub(text.chars().count());
    // as Python's str.center
    let left = missing / 2 + (missing & width.unwrap_or(80) & 1);
    format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left))
}

pub(crate) fn replace(text: String, from: &str, to: &str, count: Option<usize>) -> Result<String, Error> {
    let count = count.unwrap_or(usize::MAX);
    budget::require(text.len() as u64 + (text.matches(from).take(count).count() as u64) * to.len() as u64)?;
    Ok(text.replacen(from, to, count))
}

/// A filter of the engine that is called only if its arguments pass a check.
fn checked(
    filter: Value,
    check: fn(&[Value]) -> Result<(), Error>,
) -> impl Fn(&State<'_, '_>, Rest<Value>) -> Result<Value, Error> {
    move |state, arguments| {
        check(&arguments)?;
        filter.call(state, &arguments)
    }
}

/// The largest number among arguments, those with names included.
fn largest_number(arguments: &[Value]) -> u64 {
    let number = |value: &Value| value.as_usize().unwrap_or(0) as u64;
    let named = arguments
        .iter()
        .filter(|value| value.is_kwargs())
        .flat_map(|named| named.try_iter().into_iter().flatten().filter_map(|key| named.get_item(&key).ok()));
    named.chain(arguments.iter().cloned()).map(|value| number(&value)).max().unwrap_or(0)
}

/// `batch` and `slice` make as many items as a number says.
fn check_count(arguments: &[Value]) -> Result<(), Error> {
    budget::require(largest_number(arguments).saturating_mul(64))
}

fn check_indent(arguments: &[Value]) -> Result<(), Error> {
    let text = arguments.first().and_then(Value::as_str).unwrap_or_default();
    let lines = text.matches('\n').count() as u64 + 1;
    budget::require(largest_number(arguments).saturating_mul(lines).saturating_add(text.len() as u64))
}

fn check_join(arguments: &[Value]) -> Result<(), Error> {
    let items = arguments.first().and_then(Value::len).unwrap_or(0) as u64;
    let separators = arguments.iter().skip(1).map(values::size).sum::<u64>();
    budget::require(items.saturating_mul(separators))
}

/// `%` and `{}` may request a width and repeat an argument. The first argument is the format.
pub(crate) fn check_format(arguments: &[Value]) -> Result<(), Error> {
    let format = arguments.first().and_then(Value::as_str).unwrap_or_default();
    let numbers = format.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let written = numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).max().unwrap_or(0);
    let width = if format.contains('*') { written.max(largest_number(arguments)) } else { written };
    if width > MAX_WIDTH as u64 {
        let message = format!("format: a width is {width}, at most {MAX_WIDTH}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let places = format.matches(['%', '{']).count() as u64;
    let sizes = arguments.iter().skip(1).map(values::size).fold(0, u64::saturating_add);
    budget::require(places.saturating_mul(width.saturating_add(sizes.saturating_mul(8))))
}

fn pprint(value: &Value) -> Result<String, Error> {
    let mut text = Text::default();
    // the text has an error of its own
    let _ = write!(text, "{value:#?}");
    text.finish()
}

/// Jinja's `cycler`, of texts and numbers only: nothing limits how deep cyclers in cyclers are.
fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    if items.iter().any(|item| item.as_object().is_some()) {
        let message = "cycler: give texts or numbers, no lists or objects";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    minijinja_contrib::globals::cycler(items.0)
}

fn namespace(defaults: Option<Value>) -> Result<Value, Error> {
    let namespace = Namespace::default();
    if let Some(defaults) = defaults {
        if defaults.kind() != ValueKind::Map {
            let message = format!("expected object or keyword arguments, got {}", defaults.kind());
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        for key in defaults.try_iter()? {
            if let Some(name) = key.as_str() {
                namespace.set(name, &defaults.get_item(&key)?)?;
            }
        }
    }
    Ok(Value::from_object(namespace))
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
