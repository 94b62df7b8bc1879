//! Reads the values of `generation_config.json` as leniently as transformers does, and lists what cannot be followed.

use serde_json::{Map, Value};

use crate::ConfigProblem;

/// Reads the keys of a JSON object. Every method returns a usable value and records what was wrong, so that one pass reports
/// every problem.
pub(super) struct SettingsReader<'a> {
    object: &'a Map<String, Value>,
    vocab_size: usize,
    is_in_effect: bool,
    problems: Vec<ConfigProblem>,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, vocab_size: usize) -> Self {
        SettingsReader { object, vocab_size, is_in_effect: true, problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<ConfigProblem> {
        self.problems
    }

    /// Whether the following keys are used; otherwise only their types are checked.
    pub(super) fn set_in_effect(&mut self, is_in_effect: bool) {
        self.is_in_effect = is_in_effect;
    }

    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(ConfigProblem { key: key.to_owned(), message: message.into() });
    }

    fn expected(&mut self, key: &str, value: &Value, expected: &str) {
        self.problem(key, format!("is {}, expected {expected}", shortened(value)));
    }

    /// The value of a key; `null` counts as absent.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if value.as_bool().is_none() {
            self.expected(key, value, "true or false");
        }
        value.as_bool()
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        is_valid: impl Fn(f32) -> bool,
        expected: &str,
    ) -> Option<f32> {
        let value = self.value(key)?;
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        if number.is_none() || (self.is_in_effect && !number.is_some_and(is_valid)) {
            self.expected(key, value, expected);
        }
        number
    }

    /// A divisor of logits above 0; 1 means none.
    pub(super) fn penalty(&mut self, key: &str) -> Option<f32> {
        self.number(key, |value| value > 0.0, "a number above 0").filter(|value| *value != 1.0)
    }

    /// An integer of at least `minimum`; 0 and less mean none.
    pub(super) fn count(&mut self, key: &str, minimum: i64) -> Option<usize> {
        let value = self.value(key)?;
        match integer(value) {
            Some(number) if number >= minimum => usize::try_from(number).ok().filter(|number| *number > 0),
            _ if minimum > i64::MIN => {
                self.expected(key, value, &format!("an integer of at least {minimum}"));
                None
            }
            _ => {
                self.expected(key, value, "an integer");
                None
            }
        }
    }

    /// `top_k`: −1 and 0 keep all tokens.
    pub(super) fn top_k(&mut self, key: &str) -> Option<usize> {
        let value = self.value(key)?;
        let number = integer(value).filter(|number| *number >= -1 || !self.is_in_effect);
        if number.is_none() {
            self.expected(key, value, "an integer of at least 1, or 0 for all tokens");
        }
        number.map(|number| usize::try_from(number).unwrap_or(0))
    }

    /// A token id; a negative one means none.
    pub(super) fn special_token(&mut self, key: &str) -> Option<u32> {
        let value = self.value(key)?;
        let Some(id) = integer(value) else {
            self.expected(key, value, "a token id");
            return None;
        };
        u32::try_from(id).ok()
    }

    /// A token id or a list of them; no token has a negative id.
    pub(super) fn special_tokens(&mut self, key: &str) -> Vec<u32> {
        let ids = self.integers(key, "a token id or a list of ids");
        ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
    }

    /// A list of token ids; ids that the vocabulary does not have change nothing.
    pub(super) fn suppressed(&mut self, key: &str) -> Vec<u32> {
        if let Some(value) = self.value(key).filter(|value| !value.is_array()) {
            self.expected(key, value, "a list of token ids");
            return Vec::new();
        }
        let ids = self.integers(key, "a list of token ids");
        ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
    }

    /// Token ids of the vocabulary: one or a list.
    pub(super) fn forced_tokens(&mut self, key: &str) -> Vec<u32> {
        let ids = self.integers(key, "a token id or a list of ids");
        let known: Option<Vec<u32>> = ids.iter().map(|id| self.in_vocabulary(*id)).collect();
        known.unwrap_or_else(|| {
            let message = format!("is {ids:?}, expected ids below {}", self.vocab_size);
            self.problem(key, message);
            Vec::new()
        })
    }

    /// A token id of the vocabulary.
    pub(super) fn forced_token(&mut self, key: &str) -> Option<u32> {
        let value = self.value(key)?;
        let id = integer(value).and_then(|id| self.in_vocabulary(id));
        if id.is_none() {
            self.expected(key, value, &format!("a token id below {}", self.vocab_size));
        }
        id
    }

    /// Sequences of token ids.
    pub(super) fn bad_words(&mut self, key: &str) -> Vec<Vec<u32>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let sequences = value.as_array().and_then(|list| list.iter().map(|one| self.sequence(one)).collect());
        sequences.unwrap_or_else(|| {
            let expected = format!("a list of lists of token ids below {}", self.vocab_size);
            self.expected(key, value, &expected);
            Vec::new()
        })
    }

    /// Pairs of a sequence of token ids and a bias below infinity. −∞ excludes the token.
    pub(super) fn sequence_bias(&mut self, key: &str) -> Vec<(Vec<u32>, f32)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let pair = |entry: &Value| {
            let [sequence, bias] = entry.as_array()?.as_slice() else { return None };
            let sequence = self.sequence(sequence).filter(|sequence| !sequence.is_empty())?;
            Some((sequence, bias_of(bias)?))
        };
        let pairs = value.as_array().and_then(|list| list.iter().map(pair).collect());
        pairs.unwrap_or_else(|| {
            let expected = format!(
                "a list of [ids, bias] with non-empty lists of token ids below {}, and each bias a finite number, \
                 or -Infinity to exclude the token",
                self.vocab_size
            );
            self.expected(key, value, &expected);
            Vec::new()
        })
    }

    /// `[start, factor]`.
    pub(super) fn decay(&mut self, key: &str) -> Option<(i64, f64)> {
        let value = self.value(key)?;
        let pair = value.as_array().and_then(|pair| match pair.as_slice() {
            [start, factor] => Some((integer(start)?, factor.as_f64()?)),
            _ => None,
        });
        if pair.is_none() {
            self.expected(key, value, "[start, factor], an integer and a finite number");
        }
        pair
    }

    /// A text or a list of texts, none of them empty.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let texts: Option<Vec<String>> = match value {
            Value::Array(list) => list.iter().map(text).collect(),
            single => text(single).map(|text| vec![text]),
        };
        texts.unwrap_or_else(|| {
            self.expected(key, value, "a text or a list of texts of at least one character");
            Vec::new()
        })
    }

    fn integers(&mut self, key: &str, expected: &str) -> Vec<i64> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let numbers: Option<Vec<i64>> = match value {
            Value::Array(list) => list.iter().map(integer).collect(),
            single => integer(single).map(|number| vec![number]),
        };
        numbers.unwrap_or_else(|| {
            self.expected(key, value, expected);
            Vec::new()
        })
    }

    fn sequence(&self, value: &Value) -> Option<Vec<u32>> {
        value.as_array()?.iter().map(|id| self.in_vocabulary(integer(id)?)).collect()
    }

    fn in_vocabulary(&self, id: i64) -> Option<u32> {
        u32::try_from(id).ok().filter(|id| (*id as usize) < self.vocab_size)
    }
}

/// A bias as float32. The reader of JSON returns −∞ as text; +∞ and NaN would make every probability NaN.
fn bias_of(value: &Value) -> Option<f32> {
    let bias = match value.as_str() {
        Some("-Infinity") => f32::NEG_INFINITY,
        Some(_) => return None,
        None => value.as_f64()? as f32,
    };
    (bias < f32::INFINITY).then_some(bias)
}

/// An integer, also one that is written as 50.0.
pub(super) fn integer(value: &Value) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let integral = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT;
    value.as_i64().or_else(|| value.as_f64().filter(integral).map(|number| number as i64))
}

/// A value as JSON, cut to a length that fits in a line.
pub(super) fn shortened(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
