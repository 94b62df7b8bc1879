//! The filters that call a filter or a test for each item of a list. The engine's own call them directly, so nothing would charge
//! what they read and create before the list is complete.

use minijinja::value::{Kwargs, Rest, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::values::{ITEM, failed};
use super::{budget, operations};

/// Bytes of reading that an item costs besides what is read of it: finding and calling the function takes as long.
const STEP: u64 = 128;

/// Most arguments of `map`. A `map` of `map` is recursive, and each has an argument less than the one around it.
const MAX_ARGUMENTS: usize = 64;

/// Adds them to an environment.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("map", map);
    environment.add_filter("select", |state: &State<'_, '_>, list: &Value, test: Rest<Value>| {
        select(state, list, None, &test, true)
    });
    environment.add_filter("reject", |state: &State<'_, '_>, list: &Value, test: Rest<Value>| {
        select(state, list, None, &test, false)
    });
    environment.add_filter(
        "selectattr",
        |state: &State<'_, '_>, list: &Value, path: &str, test: Rest<Value>| {
            select(state, list, Some(path), &test, true)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &State<'_, '_>, list: &Value, path: &str, test: Rest<Value>| {
            select(state, list, Some(path), &test, false)
        },
    );
}

/// `map(filter, …)`, or `map(attribute=…, default=…)`
fn map(state: &State<'_, '_>, list: &Value, arguments: Rest<Value>) -> Result<Vec<Value>, Error> {
    if arguments.len() > MAX_ARGUMENTS {
        return Err(failed(format!("map: {} arguments, at most {MAX_ARGUMENTS}", arguments.len())));
    }
    let (positional, named): (&[Value], Kwargs) = from_args(&arguments)?;
    if let Some(key) = named.get::<Option<Value>>("attribute")? {
        if !positional.is_empty() {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        let default = named.get::<Option<Value>>("default")?;
        named.assert_all_used()?;
        return each(list, |value| Ok(Some(attribute(value, &key, default.as_ref())?)));
    }
    let name = positional.first().ok_or_else(|| failed("map: the name of a filter is missing"))?;
    let name = name.as_str().ok_or_else(|| failed("map: the name of a filter is no text"))?;
    each(list, |value| {
        let arguments = with_first(value.clone(), arguments.get(1..).unwrap_or_default());
        operations::apply_filter(state, name, &arguments).map(Some)
    })
}

/// The items of which the value under a path, or the item, passes a test. Without a test it passes if it is true.
fn select(
    state: &State<'_, '_>,
    list: &Value,
    path: Option<&str>,
    test: &[Value],
    is_kept: bool,
) -> Result<Vec<Value>, Error> {
    let test = match test {
        [] => None,
        [name, arguments @ ..] if name.is_undefined() || name.is_none() => {
            if !arguments.is_empty() {
                return Err(failed("the name of a test is missing"));
            }
            None
        }
        [name, arguments @ ..] => {
            let name = name.as_str().ok_or_else(|| failed("the name of a test is no text"))?;
            Some((name, arguments))
        }
    };
    each(list, |value| {
        let tested = path.map_or_else(|| Ok(value.clone()), |path| at(value, path))?;
        let passes = match test {
            Some((name, arguments)) => operations::perform_test(state, name, &with_first(tested, arguments))?,
            None => tested.is_true(),
        };
        Ok((passes == is_kept).then(|| value.clone()))
    })
}

/// What a function makes of each item, each charged before the next.
fn each(list: &Value, make: impl Fn(&Value) -> Result<Option<Value>, Error>) -> Result<Vec<Value>, Error> {
    let mut made = Vec::new();
    for value in list.try_iter()? {
        budget::read(STEP)?;
        if let Some(value) = make(&value)? {
            budget::create(ITEM)?;
            made.push(value);
        }
    }
    Ok(made)
}

fn with_first(value: Value, arguments: &[Value]) -> Vec<Value> {
    std::iter::once(value).chain(arguments.iter().cloned()).collect()
}

/// The value of a key or under a path, or else the default.
fn attribute(value: &Value, key: &Value, default: Option<&Value>) -> Result<Value, Error> {
    let found = match key.as_str() {
        Some(path) => at(value, path),
        None => operations::item(value, key),
    };
    match (found, default) {
        (Ok(found), Some(default)) if found.is_undefined() => Ok(default.clone()),
        (Err(_), Some(default)) if !budget::is_exceeded() => Ok(default.clone()),
        (found, _) => found,
    }
}

/// The value under keys and numbers with dots between them.
fn at(value: &Value, path: &str) -> Result<Value, Error> {
    path.split('.').try_fold(value.clone(), |value, part| {
        let key = part.parse::<usize>().map_or_else(|_| Value::from(part), Value::from);
        operations::item(&value, &key)
    })
}
