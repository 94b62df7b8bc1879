//! What is classified: texts and pairs of texts.

use std::borrow::Cow;
use std::fmt;

use jetmoe_rt::ClassifierInput;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Inputs in the form of text-embeddings-inference: a text, a pair `[text, text]`, or a batch of lists of one or two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inputs {
    One(ClassifierInput),
    Batch(Vec<ClassifierInput>),
}

impl Inputs {
    pub(crate) fn into_vec(self) -> Vec<ClassifierInput> {
        match self {
            Inputs::One(input) => vec![input],
            Inputs::Batch(inputs) => inputs,
        }
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a pair of texts, or a list of lists of one or two texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs::One(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
        let mut texts = Vec::new();
        let mut batch = Vec::new();
        while let Some(element) = list.next_element()? {
            match element {
                Element::Text(text) => texts.push(text),
                Element::Texts(texts) => batch.push(one_or_two(texts)?),
            }
            if !texts.is_empty() && !batch.is_empty() {
                return Err(de::Error::custom(
                    "texts and lists are mixed; put each text of a batch into a list",
                ));
            }
        }
        if texts.is_empty() { Ok(Inputs::Batch(batch)) } else { one_or_two(texts).map(Inputs::One) }
    }
}

/// A text, or a pair.
fn one_or_two<E: de::Error>(mut texts: Vec<String>) -> Result<ClassifierInput, E> {
    let count = texts.len();
    match (texts.pop(), texts.pop(), count) {
        (Some(text), None, 1) => Ok(text.into()),
        (Some(text_pair), Some(text), 2) => Ok((text, text_pair).into()),
        _ => Err(E::custom(format!(
            "{count} texts, expected a text or a pair; put each text of a batch into a list of its own"
        ))),
    }
}

/// An element of a list.
enum Element {
    Text(String),
    Texts(Vec<String>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Element, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Element::Texts)
    }
}

/// Texts in the form of vLLM: one, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Element::deserialize(deserializer).map(|element| match element {
            Element::Text(text) => Texts(vec![text]),
            Element::Texts(texts) => Texts(texts),
        })
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn texts() -> ArrayBuilder {
    ArrayBuilder::new().items(text()).min_items(Some(1))
}

impl ToSchema for Inputs {
    fn name() -> Cow<'static, str> {
        "ClassifierInputs".into()
    }
}

impl PartialSchema for Inputs {
    fn schema() -> RefOr<Schema> {
        let batch = ArrayBuilder::new().items(texts().max_items(Some(2))).min_items(Some(1));
        OneOfBuilder::new()
            .item(text().description(Some("A text")))
            .item(
                texts().max_items(Some(2)).description(Some("A text, or a pair of texts that are one input")),
            )
            .item(batch.description(Some("A batch of them")))
            .into()
    }
}

impl ToSchema for Texts {
    fn name() -> Cow<'static, str> {
        "ClassifierTexts".into()
    }
}

impl PartialSchema for Texts {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new().item(text()).item(texts()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Inputs, Texts};

    fn parse(json: &str) -> Result<Inputs, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_of_two_texts_is_a_pair_and_a_list_of_lists_a_batch() {
        assert_eq!(parse(r#""a""#).unwrap(), Inputs::One("a".into()));
        assert_eq!(parse(r#"["a"]"#).unwrap(), Inputs::One("a".into()));
        assert_eq!(parse(r#"["a", "b"]"#).unwrap(), Inputs::One(("a", "b").into()));
        let batch = parse(r#"[["a"], ["b", "c"]]"#).unwrap();
        assert_eq!(batch, Inputs::Batch(vec!["a".into(), ("b", "c").into()]));
    }

    #[test]
    fn another_form_is_refused() {
        for json in
            ["1", "[1]", "[[1]]", r#"["a", "b", "c"]"#, r#"[["a", "b", "c"]]"#, "[[]]", r#"["a", ["b"]]"#]
        {
            assert!(parse(json).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<Texts>("[[\"a\"]]").is_err());
        assert_eq!(serde_json::from_str::<Texts>(r#"["a", "b"]"#).unwrap().0, ["a", "b"]);
    }
}
