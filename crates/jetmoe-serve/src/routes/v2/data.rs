//! Elements of a tensor in JSON: flat or nested lists.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// Elements of a tensor in JSON, row by row, with the lengths of the lists that held them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct JsonData {
    /// Length of the lists of each level, the outermost first. A flat list has one level.
    pub(crate) lengths: Vec<usize>,
    pub(crate) elements: Elements,
}

/// Elements of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Elements {
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

impl Default for Elements {
    fn default() -> Self {
        Elements::Integers(Vec::new())
    }
}

impl Elements {
    pub(crate) fn len(&self) -> usize {
        match self {
            Elements::Integers(integers) => integers.len(),
            Elements::Texts(texts) => texts.len(),
        }
    }
}

impl JsonData {
    /// Whether the lists are one flat list, or nested as the shape says.
    pub(crate) fn has_shape(&self, shape: &[usize]) -> bool {
        self.lengths.len() == 1 || self.lengths == shape
    }
}

impl<'de> Deserialize<'de> for JsonData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut levels = Levels::default();
        List { depth: 0, levels: &mut levels }.deserialize(deserializer)?;
        let lengths = levels.lengths.into_iter().map(|length| length.unwrap_or(0)).collect();
        Ok(JsonData { lengths, elements: levels.elements })
    }
}

/// What was read so far.
#[derive(Default)]
struct Levels {
    /// `None` while the first list of a level is read.
    lengths: Vec<Option<usize>>,
    elements: Elements,
}

impl Levels {
    fn open<E: de::Error>(&mut self, depth: usize) -> Result<(), E> {
        if depth == self.lengths.len() {
            if self.elements.len() > 0 {
                return Err(uneven());
            }
            self.lengths.push(None);
        }
        Ok(())
    }

    fn close<E: de::Error>(&mut self, depth: usize, length: usize) -> Result<(), E> {
        match self.lengths.get_mut(depth) {
            Some(expected) if expected.is_none_or(|expected| expected == length) => {
                *expected = Some(length);
                Ok(())
            }
            _ => Err(uneven()),
        }
    }

    /// Checks the level of an element.
    fn check<E: de::Error>(&self, depth: usize) -> Result<(), E> {
        if depth == self.lengths.len() { Ok(()) } else { Err(uneven()) }
    }

    fn push_integer<E: de::Error>(&mut self, depth: usize, value: i64) -> Result<(), E> {
        self.check(depth)?;
        match &mut self.elements {
            Elements::Integers(integers) => integers.push(value),
            Elements::Texts(_) => return Err(E::custom("an integer follows a string in one tensor")),
        }
        Ok(())
    }

    fn push_text<E: de::Error>(&mut self, depth: usize, value: String) -> Result<(), E> {
        self.check(depth)?;
        match &mut self.elements {
            Elements::Texts(texts) => texts.push(value),
            Elements::Integers(integers) if integers.is_empty() => {
                self.elements = Elements::Texts(vec![value])
            }
            Elements::Integers(_) => return Err(E::custom("a string follows an integer in one tensor")),
        }
        Ok(())
    }
}

fn uneven<E: de::Error>() -> E {
    E::custom("lists of one level differ in length or in depth")
}

/// A list, or an element of one, at a depth from 0.
struct List<'a> {
    depth: usize,
    levels: &'a mut Levels,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.depth {
            0 => deserializer.deserialize_seq(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("integers or strings, in a flat list or nested as the shape says")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let List { depth, levels } = self;
        levels.open(depth)?;
        let mut length = 0;
        while list.next_element_seed(List { depth: depth + 1, levels: &mut *levels })?.is_some() {
            length += 1;
        }
        levels.close(depth, length)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.levels.push_integer(self.depth, value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("{value} is beyond INT64")))?;
        self.levels.push_integer(self.depth, value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.levels.push_text(self.depth, value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<(), E> {
        self.levels.push_text(self.depth, value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Elements, JsonData};

    fn parse(json: &str) -> Result<JsonData, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn flat_and_nested_lists_have_the_same_elements() {
        let flat = parse("[1, 2, 3, 4, 5, 6]").unwrap();
        let nested = parse("[[1, 2, 3], [4, 5, 6]]").unwrap();
        assert_eq!(flat.elements, Elements::Integers(vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(nested.elements, flat.elements);
        assert_eq!((flat.lengths.as_slice(), nested.lengths.as_slice()), ([6].as_slice(), [2, 3].as_slice()));
        assert!(flat.has_shape(&[2, 3]) && nested.has_shape(&[2, 3]) && !nested.has_shape(&[3, 2]));
    }

    #[test]
    fn texts_stay_as_they_are() {
        let data = parse(r#"[["a", "\u00e4\n"], ["", "b"]]"#).unwrap();
        let texts = ["a", "ä\n", "", "b"].map(str::to_owned).to_vec();
        assert_eq!(data, JsonData { lengths: vec![2, 2], elements: Elements::Texts(texts) });
    }

    #[test]
    fn uneven_lists_are_refused() {
        for json in ["[[1, 2], [3]]", "[[1], 2]", "[1, [2]]", "[[], 1]", "[[[1]], [2]]", "[[1], []]"] {
            let error = parse(json).unwrap_err();
            assert!(error.contains("differ in length or in depth"), "{json}: {error}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        for json in [
            "1",
            "\"a\"",
            "[1.5]",
            "[1.0]",
            "[true]",
            "[null]",
            "[{}]",
            "[1, \"a\"]",
            "[\"a\", 1]",
            "[9223372036854775808]",
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
        assert_eq!(
            parse("[]").unwrap(),
            JsonData { lengths: vec![0], elements: Elements::Integers(Vec::new()) }
        );
    }

    /// The parser ends at 128 levels, before the stack does.
    #[test]
    fn deep_lists_are_refused() {
        let json = "[".repeat(100_000);
        assert!(parse(&json).unwrap_err().contains("recursion limit"));
    }
}
