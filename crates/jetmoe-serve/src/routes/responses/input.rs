//! The input of a response: a text, or messages of text.

use std::borrow::Cow;
use std::fmt;

use jetmoe_rt::ChatMessage;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::error::{ApiError, ApiResult};

/// The input of a response: a text, which is a message of the user, or a list of messages.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ResponseInput {
    Text(String),
    Items(Vec<Value>),
}

impl ToSchema for ResponseInput {
    fn name() -> Cow<'static, str> {
        "ResponseInput".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((MessageItem::name().into_owned(), MessageItem::schema()));
        MessageItem::schemas(schemas);
    }
}

impl PartialSchema for ResponseInput {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let item = Ref::from_schema_name(MessageItem::name());
        OneOfBuilder::new().item(text).item(ArrayBuilder::new().items(item).min_items(Some(1))).into()
    }
}

impl<'de> Deserialize<'de> for ResponseInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = ResponseInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of messages")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ResponseInput, E> {
        Ok(ResponseInput::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ResponseInput, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(ResponseInput::Items(items))
    }
}

/// A message.
#[derive(Debug, serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageItem {
    /// `message`, which may be left out.
    #[serde(rename = "type")]
    _item_type: Option<String>,
    role: MessageRole,
    content: MessageContent,
    /// Accepted; has no effect.
    #[serde(rename = "id")]
    _id: Option<String>,
    /// Accepted; has no effect.
    #[serde(rename = "status")]
    _status: Option<MessageStatus>,
}

/// Who speaks. Instructions of a developer are those of the system for templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum MessageRole {
    User,
    Assistant,
    System,
    Developer,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageStatus {
    InProgress,
    Completed,
    Incomplete,
}

/// A text, or parts of text.
#[derive(Debug, serde::Deserialize, ToSchema)]
#[serde(untagged)]
enum MessageContent {
    Text(String),
    Parts(Vec<Value>),
}

/// A part of a message.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TextPart {
    #[serde(rename = "type")]
    _part_type: String,
    text: String,
    /// Accepted from outputs that are sent back; has no effect.
    #[serde(rename = "annotations")]
    _annotations: Option<Vec<Value>>,
    /// Accepted from outputs that are sent back; has no effect.
    #[serde(rename = "logprobs")]
    _logprobs: Option<Vec<Value>>,
}

/// The messages of a request, its instructions first.
///
/// # Errors
/// Status 400 for an item that is no message, or has other content than text, with its place as the parameter.
pub(super) fn messages(input: &ResponseInput, instructions: Option<&str>) -> ApiResult<Vec<ChatMessage>> {
    let mut messages: Vec<ChatMessage> = instructions.map(ChatMessage::system).into_iter().collect();
    match input {
        ResponseInput::Text(text) if text.is_empty() => {
            return Err(ApiError::invalid("input", "input is empty; give at least one character"));
        }
        ResponseInput::Items(items) if items.is_empty() => {
            return Err(ApiError::invalid("input", "input is empty; give at least one message"));
        }
        ResponseInput::Text(text) => messages.push(ChatMessage::user(text)),
        ResponseInput::Items(items) => {
            for (index, item) in items.iter().enumerate() {
                messages.push(message(&format!("input[{index}]"), item)?);
            }
        }
    }
    Ok(messages)
}

/// The message of the item at a place.
fn message(place: &str, item: &Value) -> ApiResult<ChatMessage> {
    let Value::Object(object) = item else {
        return Err(ApiError::invalid(place, format!("{place} is no object")));
    };
    check_type(place, object, &["message"], "send text messages only")?;
    if object.contains_key("phase") {
        return Err(ApiError::unsupported(
            &format!("{place}.phase"),
            "leave it out: no template shows it to the model",
        ));
    }
    let invalid = |error: serde_json::Error| ApiError::invalid(place, format!("{place}: {error}"));
    let message: MessageItem = serde_json::from_value(item.clone()).map_err(invalid)?;
    let content = match message.content {
        MessageContent::Text(text) => text,
        MessageContent::Parts(parts) => {
            let parts = parts.iter().enumerate();
            let texts = parts.map(|(index, part)| text(&format!("{place}.content[{index}]"), part));
            texts.collect::<ApiResult<Vec<_>>>()?.concat()
        }
    };
    Ok(match message.role {
        MessageRole::User => ChatMessage::user(content),
        MessageRole::Assistant => ChatMessage::assistant(content),
        MessageRole::System | MessageRole::Developer => ChatMessage::system(content),
    })
}

/// The text of the part at a place.
fn text(place: &str, part: &Value) -> ApiResult<String> {
    let Value::Object(object) = part else {
        return Err(ApiError::invalid(place, format!("{place} is no object")));
    };
    if !object.contains_key("type") {
        return Err(ApiError::invalid(&format!("{place}.type"), format!("{place}.type is missing")));
    }
    check_type(place, object, &["input_text", "output_text", "text"], "send text only")?;
    let invalid = |error: serde_json::Error| ApiError::invalid(place, format!("{place}: {error}"));
    let part: TextPart = serde_json::from_value(part.clone()).map_err(invalid)?;
    Ok(part.text)
}

/// Refuses another type than the known ones; none is one of them.
fn check_type(place: &str, object: &Map<String, Value>, known: &[&str], advice: &str) -> ApiResult<()> {
    let place = format!("{place}.type");
    match object.get("type") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(found)) if known.contains(&found.as_str()) => Ok(()),
        Some(Value::String(found)) => {
            let message = format!("{place} is {found:?}, expected {}", known.join(", "));
            Err(ApiError::invalid(&place, message).with_advice(advice))
        }
        Some(_) => Err(ApiError::invalid(&place, format!("{place} is no text"))),
    }
}

#[cfg(test)]
mod tests {
    use jetmoe_rt::ChatMessage;
    use serde_json::{Value, json};

    use super::{ResponseInput, messages};
    use crate::error::{ApiError, ApiResult};

    fn read(input: Value, instructions: Option<&str>) -> ApiResult<Vec<ChatMessage>> {
        messages(&serde_json::from_value::<ResponseInput>(input).unwrap(), instructions)
    }

    fn refused(input: Value) -> ApiError {
        read(input, None).unwrap_err()
    }

    #[test]
    fn a_text_is_a_message_of_the_user() {
        assert_eq!(read(json!("Hello"), None).unwrap(), [ChatMessage::user("Hello")]);
        let with_instructions = read(json!("Hello"), Some("Be brief.")).unwrap();
        assert_eq!(with_instructions, [ChatMessage::system("Be brief."), ChatMessage::user("Hello")]);
    }

    #[test]
    fn messages_keep_their_order_and_parts_are_joined() {
        let input = json!([
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "Who "}, {"type": "input_text", "text": "made it?"},
            ]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "God.", "annotations": [], "logprobs": []},
            ]},
        ]);
        let expected = [
            ChatMessage::system("Be brief."),
            ChatMessage::user("Who made it?"),
            ChatMessage::assistant("God."),
        ];
        assert_eq!(read(input, None).unwrap(), expected);
    }

    #[test]
    fn what_is_no_text_message_is_refused_with_its_place() {
        for (input, param) in [
            (json!([]), "input"),
            (json!(""), "input"),
            (json!([1]), "input[0]"),
            (json!([{"type": "item_reference", "id": "x"}]), "input[0].type"),
            (
                json!([{"role": "user", "content": "a"}, {"type": "reasoning", "summary": []}]),
                "input[1].type",
            ),
            (json!([{"role": "tool", "content": "a"}]), "input[0]"),
            (json!([{"role": "user"}]), "input[0]"),
            (json!([{"role": "user", "content": "a", "name": "x"}]), "input[0]"),
            (
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
                "input[0].content[0].type",
            ),
            (json!([{"role": "user", "content": [{"text": "x"}]}]), "input[0].content[0].type"),
            (json!([{"role": "assistant", "content": "a", "phase": "commentary"}]), "input[0].phase"),
        ] {
            assert_eq!(refused(input.clone()).param(), Some(param), "{input}");
        }
        for input in [json!(1), json!({}), Value::Null] {
            assert!(serde_json::from_value::<ResponseInput>(input).is_err());
        }
    }
}
