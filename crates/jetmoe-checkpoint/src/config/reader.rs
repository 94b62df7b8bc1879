//! Reading `config.json` key by key: aliases, defaults, and a list of all problems.

use std::fmt;

use serde_json::{Map, Value};

use crate::ConfigProblem;

/// Largest accepted size. The product of two sizes fits into 64 bits.
pub(super) const MAX_SIZE: usize = i32::MAX as usize;

/// Reads the keys of a JSON object. Every method returns a usable value and records what was wrong, so that one pass
/// reports every problem.
pub(super) struct ConfigReader<'a> {
    object: &'a Map<String, Value>,
    /// Prefix for keys in messages, such as `rope_parameters.`.
    prefix: &'static str,
    problems: Vec<ConfigProblem>,
    /// What is read as something else than it says, or not at all.
    notes: Vec<String>,
}

impl<'a> ConfigReader<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, prefix: &'static str) -> Self {
        ConfigReader { object, prefix, problems: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<ConfigProblem> {
        self.problems
    }

    /// Every problem, and every note.
    pub(super) fn into_findings(self) -> (Vec<ConfigProblem>, Vec<String>) {
        (self.problems, self.notes)
    }

    /// Records that a key is not read as it is written.
    pub(super) fn note(&mut self, key: &str, message: impl fmt::Display) {
        self.notes.push(format!("{}{key}: {message}", self.prefix));
    }

    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(ConfigProblem { key: format!("{}{key}", self.prefix), message: message.into() });
    }

    /// Removes and returns the problems recorded so far.
    pub(super) fn take_problems(&mut self) -> Vec<ConfigProblem> {
        std::mem::take(&mut self.problems)
    }

    /// Returns the problems recorded so far and puts others in their place.
    pub(super) fn replace_problems(&mut self, problems: Vec<ConfigProblem>) -> Vec<ConfigProblem> {
        std::mem::replace(&mut self.problems, problems)
    }

    pub(super) fn extend_problems(&mut self, problems: Vec<ConfigProblem>) {
        self.problems.extend(problems);
    }

    /// Whether the key exists, even with the value `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The value of a key; `null` counts as absent.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// The first of the aliases `keys` that is present. Records a problem if another one has a different value.
    fn first_alias(&mut self, keys: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        let mut present = keys.iter().filter_map(|key| self.value(key).map(|value| (*key, value)));
        let first = present.next()?;
        let contradiction = present.find(|(_, value)| !is_equal(value, first.1));
        if let Some((key, value)) = contradiction {
            self.problem(key, format!("is {value}, but {} is {}; keep one of them", first.0, first.1));
        }
        Some(first)
    }

    /// An integer from 1 to [`MAX_SIZE`]; `keys` are aliases.
    pub(super) fn size(&mut self, keys: &[&'static str], default: usize) -> usize {
        self.size_up_to(keys, default, MAX_SIZE)
    }

    /// An integer from 1 to `maximum`; `keys` are aliases.
    pub(super) fn size_up_to(&mut self, keys: &[&'static str], default: usize, maximum: usize) -> usize {
        let Some((key, value)) = self.first_alias(keys) else { return default };
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (1..=maximum).contains(&number) => number,
            _ => {
                self.problem(key, format!("is {value}, expected an integer from 1 to {maximum}"));
                default
            }
        }
    }

    /// A finite number of at least `minimum`.
    pub(super) fn number(&mut self, key: &'static str, minimum: f64) -> Option<f64> {
        self.number_that(key, |number| number >= minimum, || format!("a number of at least {minimum}"))
    }

    /// A finite number above 0.
    pub(super) fn positive(&mut self, key: &'static str) -> Option<f64> {
        self.number_that(key, |number| number > 0.0, || "a number above 0".to_owned())
    }

    fn number_that(
        &mut self,
        key: &'static str,
        is_valid: impl Fn(f64) -> bool,
        expected: impl Fn() -> String,
    ) -> Option<f64> {
        let value = self.value(key)?;
        let number = value.as_f64().filter(|number| number.is_finite() && is_valid(*number));
        if number.is_none() {
            self.problem(key, format!("is {value}, expected {}", expected()));
        }
        number
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.problem(key, format!("is {other}, expected true or false"));
                default
            }
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.value(key)?;
        let text = value.as_str();
        if text.is_none() {
            self.problem(key, format!("is {value}, expected a string"));
        }
        text
    }

    /// A token id, or a list of them.
    pub(super) fn token_ids(&mut self, key: &'static str, default: &[u32]) -> Vec<u32> {
        match self.object.get(key) {
            None => default.to_vec(),
            Some(value) => match token_ids(value) {
                Some(ids) => ids,
                None => {
                    self.problem(key, format!("is {value}, expected a token id, a list of ids, or null"));
                    default.to_vec()
                }
            },
        }
    }
}

/// Token ids from `null`, an integer or a list of integers; `None` for anything else. A negative integer is no token: some
/// programs write −1 where there is none.
pub(crate) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let ids = |values: &[Value]| {
        let integers: Option<Vec<i64>> = values.iter().map(Value::as_i64).collect();
        integers?.into_iter().filter(|id| *id >= 0).map(|id| u32::try_from(id).ok()).collect()
    };
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(values) => ids(values),
        single => ids(std::slice::from_ref(single)),
    }
}

fn is_equal(left: &Value, right: &Value) -> bool {
    left == right || left.as_f64().is_some_and(|number| Some(number) == right.as_f64())
}
