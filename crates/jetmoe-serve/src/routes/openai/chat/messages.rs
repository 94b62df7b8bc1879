//! Messages of conversations, as clients send them and as templates read them.

use jetmoe_rt::{ChatMessage, Tokenizer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::tools::ToolCall;
use crate::error::{ApiError, ApiResult};

/// A message of a conversation.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    /// Who says it.
    role: Role,
    /// The text, or parts of it. May be null for an assistant that calls tools.
    content: Option<Content>,
    /// A name, for chat templates that read it.
    name: Option<String>,
    /// Calls of tools by the assistant.
    tool_calls: Option<Vec<ToolCall>>,
    /// The call that a message of a tool answers.
    tool_call_id: Option<String>,
    /// The reasoning of an assistant, for chat templates that read it.
    reasoning_content: Option<String>,
    /// Null only, as an answer has it.
    #[schema(value_type = Option<String>)]
    refusal: Option<Value>,
    /// Null or empty only, as an answer has it.
    #[schema(value_type = Option<Vec<Object>>)]
    annotations: Option<Value>,
    /// Null only.
    #[schema(value_type = Option<Object>)]
    audio: Option<Value>,
    /// Null only; use `tool_calls`.
    #[schema(value_type = Option<Object>)]
    function_call: Option<Value>,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The same; it is `system` for chat templates that have no such role.
    Developer,
    /// A turn of the user.
    User,
    /// A turn of the model.
    Assistant,
    /// The result of a call, for chat templates that take tools.
    Tool,
}

/// The text of a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Content {
    /// The text.
    Text(String),
    /// Parts, whose texts follow each other.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Part {
    /// `text`.
    #[serde(rename = "type")]
    kind: PartKind,
    /// The text.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PartKind {
    Text,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Value::Array(parts) = &value {
            let kinds = parts.iter().filter_map(|part| part.get("type")?.as_str());
            if let Some(kind) = kinds.into_iter().find(|kind| *kind != "text") {
                let message = format!("parts of type {kind:?} are not supported: the model reads text only");
                return Err(serde::de::Error::custom(message));
            }
        }
        let parsed = match value {
            Value::String(text) => return Ok(Content::Text(text)),
            value => serde_json::from_value(value).map(Content::Parts),
        };
        parsed.map_err(|error| serde::de::Error::custom(format!("expected a text or parts of it: {error}")))
    }
}

impl Content {
    fn into_text(self) -> String {
        match self {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        }
    }
}

impl Role {
    /// The name that a chat template reads.
    fn name(self, tokenizer: Option<&Tokenizer>) -> &'static str {
        match self {
            Role::Developer if tokenizer.is_some_and(|it| it.chat_templates_read("developer")) => "developer",
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// The messages as a chat template reads them.
///
/// # Errors
/// Status 400 for what the template does not read, with the message as the parameter.
pub(crate) fn to_chat(messages: &[Message], tokenizer: Option<&Tokenizer>) -> ApiResult<Vec<ChatMessage>> {
    messages.iter().enumerate().map(|(index, message)| message.to_chat(index, tokenizer)).collect()
}

impl Message {
    fn to_chat(&self, index: usize, tokenizer: Option<&Tokenizer>) -> ApiResult<ChatMessage> {
        let field = |name: &str| format!("messages[{index}].{name}");
        self.check_null(&field)?;
        let reads = |name: &str| tokenizer.is_some_and(|it| it.chat_templates_read(name));
        let refuse = |name: &str, word: &str| match reads(word) {
            true => Ok(()),
            false => Err(ApiError::unsupported(
                &field(name),
                "leave it out: the chat template of the model does not read it",
            )),
        };
        if self.role == Role::Tool {
            refuse("role", "tool")?;
        }
        let content = match (&self.content, &self.tool_calls) {
            (Some(content), _) => content.clone().into_text(),
            (None, Some(_)) => String::new(),
            (None, None) => {
                let field = field("content");
                return Err(ApiError::invalid(&field, format!("{field} is missing")));
            }
        };
        let mut chat = ChatMessage::new(self.role.name(tokenizer), content);
        for (name, value) in [
            ("name", self.name.as_ref()),
            ("tool_call_id", self.tool_call_id.as_ref()),
            ("reasoning_content", self.reasoning_content.as_ref()),
        ] {
            if let Some(value) = value {
                refuse(name, name)?;
                chat = chat.with_extra(name, value.clone());
            }
        }
        if let Some(calls) = &self.tool_calls {
            refuse("tool_calls", "tool_calls")?;
            chat = chat
                .with_extra("tool_calls", calls.iter().map(ToolCall::for_template).collect::<Vec<Value>>());
        }
        Ok(chat)
    }

    /// Fields that answers have, and clients send back.
    fn check_null(&self, field: &dyn Fn(&str) -> String) -> ApiResult<()> {
        let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        let fields = [
            ("refusal", &self.refusal),
            ("annotations", &self.annotations),
            ("audio", &self.audio),
            ("function_call", &self.function_call),
        ];
        match fields.into_iter().find(|(_, value)| value.as_ref().is_some_and(|value| !is_empty(value))) {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::unsupported(&field(name), "leave it out: the model reads text only"))
            }
        }
    }

    /// Whether the template has to print its text as it is. Templates may leave out parts of former answers, and quote results.
    fn is_printed(&self) -> bool {
        matches!(self.role, Role::System | Role::Developer | Role::User)
    }
}

/// Refuses a conversation of which the chat template leaves a message out.
pub(crate) fn check_rendered(messages: &[Message], rendered: &str) -> ApiResult<()> {
    let is_left_out = |message: &Message| {
        let content = message.content.clone().map(Content::into_text).unwrap_or_default();
        message.is_printed() && !rendered.contains(content.trim())
    };
    match messages.iter().position(is_left_out) {
        None => Ok(()),
        Some(index) => {
            let field = format!("messages[{index}]");
            let message = format!("the chat template of the model leaves {field} out");
            Err(ApiError::invalid(&field, message).with_advice("use other roles, or another order"))
        }
    }
}
