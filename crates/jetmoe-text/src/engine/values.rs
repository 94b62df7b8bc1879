//! The lists and objects of a template. Each holds its depth and its size, so that nothing has to be traversed to find out
//! whether it may be traversed: a value is at most [`MAX_DEPTH`] deep, and an operation charges the whole size before it reads.
//!
//! [`own`] makes such values of those that the engine makes. A namespace is the only value that changes, so nothing may contain
//! one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::budget;
use crate::limits::MAX_DEPTH;

/// Bytes of a number, and of an item besides its text.
pub(super) const ITEM: u64 = 32;

/// A list or an object that does not change.
#[derive(Debug)]
struct Container {
    inner: DynObject,
    repr: ObjectRepr,
    len: usize,
    depth: usize,
    size: u64,
}

impl Object for Container {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        self.repr
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.inner.get_value(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.inner.get_value_by_str(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.inner.enumerate()
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len)
    }
}

/// Jinja's `namespace`.
#[derive(Debug, Default)]
pub(crate) struct Namespace(Mutex<BTreeMap<Arc<str>, Value>>);

impl Namespace {
    /// Sets a key. The value must not contain a namespace.
    pub(crate) fn set(&self, key: &str, value: &Value) -> Result<(), Error> {
        let value = item(value, MAX_DEPTH)?;
        budget::create(ITEM + key.len() as u64)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), value);
        Ok(())
    }

    fn values(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Object for Namespace {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Enumerator::Values(keys.keys().cloned().map(Value::from).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).len())
    }
}

/// Bytes of a value, with everything in it as often as it is in it.
pub(crate) fn size(value: &Value) -> u64 {
    if let Some(text) = value.as_str() {
        return text.len() as u64 + ITEM;
    }
    if let Some(container) = value.downcast_object_ref::<Container>() {
        return container.size;
    }
    if let Some(namespace) = value.downcast_object_ref::<Namespace>() {
        return namespace.values().iter().map(size).fold(ITEM, u64::saturating_add);
    }
    if value.is_kwargs() {
        let items = value.try_iter().into_iter().flatten();
        return items.filter_map(|key| value.get_item(&key).ok()).map(|item| size(&item)).sum();
    }
    ITEM
}

/// Bytes of the text of a value, or of the items of a list without what they refer to.
pub(crate) fn shallow_size(value: &Value) -> u64 {
    match (value.as_str(), value.as_object()) {
        (Some(text), _) => text.len() as u64,
        (None, Some(object)) => ITEM.saturating_mul(object.enumerator_len().unwrap_or(1) as u64),
        (None, None) => 0,
    }
}

/// Whether a value refers to others without being one of ours: a macro or a function.
fn is_callable(object: &DynObject) -> bool {
    object.repr() == ObjectRepr::Plain || object.type_name().ends_with("Macro")
}

/// The value that a step of a template has made: charged, and if it is a list or an object, one that holds its depth and size.
pub(crate) fn own(value: &Value) -> Result<Value, Error> {
    if value.is_kwargs() || value.downcast_object_ref::<Namespace>().is_some() {
        return Ok(value.clone());
    }
    if let Some(text) = value.as_str() {
        budget::create(text.len() as u64)?;
    }
    item(value, MAX_DEPTH)
}

/// The value as an item of a list, an object or a namespace, with at most so many levels.
fn item(value: &Value, levels: usize) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value.clone()) };
    if value.downcast_object_ref::<Namespace>().is_some() {
        let message = "a namespace cannot be in a list, an object or a namespace";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    if let Some(container) = value.downcast_object_ref::<Container>() {
        return if container.depth <= levels { Ok(value.clone()) } else { Err(too_deep()) };
    }
    if is_callable(object) {
        return Ok(value.clone());
    }
    if levels == 0 {
        return Err(too_deep());
    }
    let repr = object.repr();
    let mut size = ITEM;
    let mut depth = 0;
    let mut add = |value: &Value| -> Result<Value, Error> {
        if let Some(text) = value.as_str() {
            budget::create(text.len() as u64)?;
        }
        budget::create(ITEM)?;
        let value = item(value, levels - 1)?;
        size = size.saturating_add(self::size(&value));
        depth = depth.max(value.downcast_object_ref::<Container>().map_or(0, |inner| inner.depth));
        Ok(value)
    };
    let inner = if repr == ObjectRepr::Map {
        let mut pairs = Vec::new();
        for key in value.try_iter()? {
            pairs.push((add(&key)?, add(&value.get_item(&key)?)?));
        }
        pairs.into_iter().collect::<Value>()
    } else {
        let mut items = Vec::new();
        for value in value.try_iter()? {
            items.push(add(&value)?);
        }
        Value::from(items)
    };
    match inner.as_object() {
        Some(inner) => {
            let len = inner.enumerator_len().unwrap_or(0);
            Ok(Value::from_object(Container { inner: inner.clone(), repr, len, depth: depth + 1, size }))
        }
        None => Ok(inner),
    }
}

fn too_deep() -> Error {
    let message = format!("the value is nested deeper than {MAX_DEPTH} levels");
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The error of a call with such arguments.
pub(crate) fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Whether a value is a list or an object.
pub(crate) fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}
