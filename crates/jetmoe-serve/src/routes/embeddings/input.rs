//! What is embedded: a text, token ids, or a list of either.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// What is embedded: a text, token ids, or a list of either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inputs(pub(crate) Vec<Input>);

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Text(String),
    Tokens(Vec<u32>),
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
        f.write_str("a text, token ids, or a list of texts or of lists of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs(vec![Input::Text(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
        let mut inputs = Vec::new();
        let mut token_ids = Vec::new();
        while let Some(element) = list.next_element()? {
            match element {
                Element::Token(id) => token_ids.push(id),
                Element::Text(text) => inputs.push(Input::Text(text)),
                Element::Tokens(ids) => inputs.push(Input::Tokens(ids)),
            }
            if !inputs.is_empty() && !token_ids.is_empty() {
                return Err(de::Error::custom(
                    "token ids are mixed with texts or lists; put them into a list of their own",
                ));
            }
        }
        if !token_ids.is_empty() {
            inputs.push(Input::Tokens(token_ids));
        }
        Ok(Inputs(inputs))
    }
}

/// An element of a list.
enum Element {
    Token(u32),
    Text(String),
    Tokens(Vec<u32>),
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
        f.write_str("a text, a token id from 0 to 4294967295, or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Element, E> {
        let invalid = || E::invalid_value(de::Unexpected::Unsigned(id), &self);
        u32::try_from(id).map(Element::Token).map_err(|_| invalid())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Element, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Element::Tokens)
    }
}

impl ToSchema for Inputs {
    fn name() -> Cow<'static, str> {
        "EmbeddingInput".into()
    }
}

impl PartialSchema for Inputs {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let ids = || {
            let id = ObjectBuilder::new().schema_type(Type::Integer);
            ArrayBuilder::new().items(id.minimum(Some(0)).maximum(Some(u32::MAX))).min_items(Some(1))
        };
        let either = OneOfBuilder::new().item(text()).item(ids());
        let list = ArrayBuilder::new().items(either).min_items(Some(1));
        OneOfBuilder::new()
            .item(text().description(Some("A text")))
            .item(ids().description(Some("Token ids")))
            .item(list.description(Some("Texts, or lists of token ids")))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, Inputs};

    fn parse(json: &str) -> Result<Vec<Input>, String> {
        serde_json::from_str::<Inputs>(json).map(|inputs| inputs.0).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_is_read() {
        let text = |text: &str| Input::Text(text.to_owned());
        assert_eq!(parse(r#""a""#).unwrap(), [text("a")]);
        assert_eq!(parse(r#"["a", "b"]"#).unwrap(), [text("a"), text("b")]);
        assert_eq!(parse("[1, 2]").unwrap(), [Input::Tokens(vec![1, 2])]);
        assert_eq!(parse("[[1, 2], [3]]").unwrap(), [Input::Tokens(vec![1, 2]), Input::Tokens(vec![3])]);
        assert_eq!(parse(r#"["a", [3]]"#).unwrap(), [text("a"), Input::Tokens(vec![3])]);
        assert_eq!(parse("[]").unwrap(), []);
        assert_eq!(parse("[[]]").unwrap(), [Input::Tokens(Vec::new())]);
    }

    #[test]
    fn another_form_is_refused() {
        for json in [
            "1",
            "null",
            "{}",
            "[1, \"a\"]",
            "[\"a\", 1]",
            "[[1], 2]",
            "[-1]",
            "[4294967296]",
            "[1.5]",
            "[[\"a\"]]",
            "[[[1]]]",
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }
}
