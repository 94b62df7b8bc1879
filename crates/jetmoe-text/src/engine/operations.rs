//! The filters that take the place of the engine's operators and calls.

use std::fmt::Write;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::values::{self, Namespace, failed};
use super::{budget, sequences};

// no name in a template can be one of these
/// A result that enters a list, an object or a variable.
pub(super) const OWN: &str = "~own";
/// An operand that is read whole.
pub(super) const READ: &str = "~read";
/// Bytes that an instruction takes.
pub(super) const CREATE: &str = "~create";
/// What a loop goes through.
pub(super) const LOOP: &str = "~loop";
/// Lists that are the arguments of a call.
pub(super) const ARGUMENTS: &str = "~arguments";
pub(super) const ITEM: &str = "~item";
pub(super) const SLICE: &str = "~slice";
pub(super) const ADD: &str = "~add";
pub(super) const MULTIPLY: &str = "~multiply";
pub(super) const CONCATENATE: &str = "~concatenate";
pub(super) const FILTER: &str = "~filter";
pub(super) const TEST: &str = "~test";
pub(super) const METHOD: &str = "~method";
pub(super) const SET_ATTRIBUTE: &str = "~set_attribute";

/// Filters that take single items of their value, or none.
const SHALLOW_FILTERS: [&str; 10] =
    ["length", "count", "first", "last", "default", "d", "list", "items", "attr", "bool"];
/// Methods that do so.
const SHALLOW_METHODS: [&str; 6] = ["get", "items", "keys", "values", "startswith", "endswith"];
/// Tests of a value's type.
const SHALLOW_TESTS: [&str; 16] = [
    "defined",
    "undefined",
    "none",
    "string",
    "mapping",
    "sequence",
    "iterable",
    "number",
    "integer",
    "int",
    "float",
    "boolean",
    "true",
    "false",
    "callable",
    "safe",
];

/// Most bytes that a filter or a method makes of one byte of text: `split` of one character for each item.
const TEXT_FACTOR: u64 = 32;
/// The same of a value that is written as text: an escaped character.
const VALUE_FACTOR: u64 = 8;

/// Adds them to an environment.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter(OWN, |value: &Value| values::own(value));
    environment.add_filter(READ, |value: &Value| budget::read(values::size(value)).map(|()| value.clone()));
    environment.add_filter(CREATE, |bytes: u64| budget::create(bytes).map(|()| Value::UNDEFINED));
    environment.add_filter(LOOP, loop_over);
    environment.add_filter(ARGUMENTS, arguments_of);
    environment.add_filter(ITEM, item);
    environment.add_filter(SLICE, slice);
    environment.add_filter(ADD, add);
    environment.add_filter(MULTIPLY, multiply);
    environment.add_filter(CONCATENATE, concatenate);
    environment.add_filter(FILTER, filter);
    environment.add_filter(TEST, test);
    environment.add_filter(METHOD, method);
    environment.add_filter(SET_ATTRIBUTE, set_attribute);
    sequences::add_to(environment);
}

/// A loop holds a copy of the keys of an object, or of a text.
fn loop_over(value: &Value) -> Result<Value, Error> {
    if !is_list(value) {
        budget::create(values::shallow_size(value))?;
    }
    Ok(value.clone())
}

/// The lists in one.
fn arguments_of(lists: Rest<Value>) -> Result<Value, Error> {
    budget::create(lists.iter().map(values::shallow_size).fold(0, u64::saturating_add))?;
    let mut arguments = Vec::new();
    for list in lists.iter() {
        arguments.extend(list.try_iter()?);
    }
    Ok(Value::from(arguments))
}

/// `value[key]`: a text is read up to the character, and a key whole.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    budget::read(values::size(key) + value.as_str().map_or(0, str::len) as u64)?;
    value.get_item(key)
}

/// `value[start:stop:step]`
fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    budget::read(values::shallow_size(value))?;
    let environment = Environment::empty();
    let variables = minijinja::context!(value => value, start => start, stop => stop, step => step);
    values::own(&environment.compile_expression("value[start:stop:step]")?.eval(variables)?)
}

/// An operator of the engine, on numbers or for its error.
fn engine_operator(expression: &'static str, left: &Value, right: &Value) -> Result<Value, Error> {
    let environment = Environment::empty();
    environment.compile_expression(expression)?.eval(minijinja::context!(left => left, right => right))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn integers(left: &Value, right: &Value) -> Option<(i64, i64)> {
    let integer = |value: &Value| i64::try_from(value.clone()).ok().filter(|_| value.is_integer());
    integer(left).zip(integer(right))
}

/// `+`
fn add(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(sum) = integers(left, right).and_then(|(left, right)| left.checked_add(right)) {
        return Ok(Value::from(sum));
    }
    match (left.as_str(), right.as_str()) {
        (Some(left), Some(right)) => {
            budget::create((left.len() + right.len()) as u64)?;
            Ok(Value::from([left, right].concat()))
        }
        _ if is_list(left) && is_list(right) => {
            budget::require(values::shallow_size(left).saturating_add(values::shallow_size(right)))?;
            values::own(&left.try_iter()?.chain(right.try_iter()?).collect())
        }
        _ => engine_operator("left + right", left, right),
    }
}

/// `*`
fn multiply(left: &Value, right: &Value) -> Result<Value, Error> {
    for (repeated, count) in [(left, right), (right, left)] {
        let count = count.as_usize().map(|count| count as u64);
        match (repeated.as_str(), count) {
            (Some(text), Some(count)) => {
                budget::create(count.saturating_mul(text.len() as u64))?;
                return engine_operator("left * right", left, right);
            }
            (None, Some(count)) if is_list(repeated) => {
                budget::require(count.saturating_mul(values::shallow_size(repeated)))?;
                return values::own(&engine_operator("left * right", left, right)?);
            }
            _ => {}
        }
    }
    engine_operator("left * right", left, right)
}

/// `~`
fn concatenate(left: &Value, right: &Value) -> Result<Value, Error> {
    let mut text = budget::Text::default();
    budget::read(values::size(left).saturating_add(values::size(right)))?;
    // the text has an error of its own
    let _ = write!(text, "{left}{right}");
    text.finish().map(Value::from)
}

/// Checks and charges a call before it is made: everything that its arguments hold, or only what a shallow one looks at.
fn charge(arguments: &[Value], is_shallow: bool) -> Result<(), Error> {
    let shallow = arguments.iter().map(values::shallow_size).fold(0, u64::saturating_add);
    if is_shallow {
        budget::read(shallow)?;
        return budget::require(shallow);
    }
    let sizes = arguments.iter().map(values::size).fold(0, u64::saturating_add);
    budget::read(sizes)?;
    let texts = arguments.iter().filter_map(Value::as_str).map(|text| text.len() as u64).sum::<u64>();
    budget::require(texts.saturating_mul(TEXT_FACTOR).saturating_add(sizes.saturating_mul(VALUE_FACTOR)))
}

/// The arguments of a call, and the name behind them.
fn split_name(arguments: &[Value]) -> Result<(&[Value], String), Error> {
    match arguments {
        [arguments @ .., name] => {
            // a name may be written with spaces around its dots
            let name = name.as_str().unwrap_or_default();
            Ok((arguments, name.split_ascii_whitespace().collect()))
        }
        [] => Err(failed("a call has no name")),
    }
}

fn filter(state: &State<'_, '_>, arguments: Rest<Value>) -> Result<Value, Error> {
    let (arguments, name) = split_name(&arguments)?;
    apply_filter(state, &name, arguments)
}

/// Calls a filter, within the limits.
pub(super) fn apply_filter(state: &State<'_, '_>, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    charge(arguments, SHALLOW_FILTERS.contains(&name))?;
    let unknown = || Error::new(ErrorKind::UnknownFilter, format!("filter {name} is unknown"));
    // `map` takes any name
    if name.starts_with('~') {
        return Err(unknown());
    }
    let result = state.apply_filter(name, arguments).map_err(|error| match error.kind() {
        ErrorKind::UnknownFilter if error.detail().is_none() => unknown(),
        _ => error,
    })?;
    values::own(&result)
}

fn test(state: &State<'_, '_>, arguments: Rest<Value>) -> Result<bool, Error> {
    let (arguments, name) = split_name(&arguments)?;
    perform_test(state, &name, arguments)
}

/// Calls a test, within the limits.
pub(super) fn perform_test(state: &State<'_, '_>, name: &str, arguments: &[Value]) -> Result<bool, Error> {
    if !SHALLOW_TESTS.contains(&name) {
        budget::read(arguments.iter().map(values::size).fold(0, u64::saturating_add))?;
    }
    state.perform_test(name, arguments).map_err(|error| match error.kind() {
        ErrorKind::UnknownTest if error.detail().is_none() => {
            Error::new(ErrorKind::UnknownTest, format!("test {name} is unknown"))
        }
        _ => error,
    })
}

fn method(state: &State<'_, '_>, arguments: Rest<Value>) -> Result<Value, Error> {
    let (arguments, name) = split_name(&arguments)?;
    let [value, arguments @ ..] = arguments else { return Err(failed("a method has no value")) };
    let is_shallow = SHALLOW_METHODS.contains(&name.as_str());
    charge(std::slice::from_ref(value), is_shallow)?;
    charge(arguments, is_shallow)?;
    values::own(&value.call_method(state, &name, arguments)?)
}

/// `{% set namespace.key = value %}`
fn set_attribute(value: &Value, namespace: &Value, key: &str) -> Result<Value, Error> {
    match namespace.downcast_object_ref::<Namespace>() {
        Some(namespace) => namespace.set(key, value).map(|()| Value::UNDEFINED),
        None => Err(failed(format!("can only assign to namespaces, not {}", namespace.kind()))),
    }
}
