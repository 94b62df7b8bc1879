//! Tools: what the answer may call, and the calls.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::super::ids;
use crate::engine::ConstraintKind;
use crate::error::{ApiError, ApiResult};

/// A tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    /// `function`.
    #[serde(rename = "type")]
    kind: ToolKind,
    function: Function,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ToolKind {
    Function,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Function {
    /// Its name.
    name: String,
    /// What it does, for the chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// A JSON schema of its arguments; any object without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    /// Accepted with either value: the schema always holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Whether a tool is called.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This function.
    Function(NamedTool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ToolMode {
    None,
    Auto,
    Required,
}

/// The function to call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedTool {
    /// `function`.
    #[serde(rename = "type")]
    kind: ToolKind,
    function: FunctionName,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FunctionName {
    name: String,
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match value {
            Value::String(_) => serde_json::from_value(value).map(ToolChoice::Mode),
            value => serde_json::from_value(value).map(ToolChoice::Function),
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

/// A call of a tool by an assistant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolCall {
    /// Its index in the answer; in chunks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// An id of the call.
    id: String,
    /// `function`.
    #[serde(rename = "type")]
    kind: ToolKind,
    function: CalledFunction,
}

/// A function with its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CalledFunction {
    /// Its name.
    name: String,
    /// Its arguments, as a text in JSON.
    arguments: String,
}

impl ToolCall {
    /// The call that a constrained answer is; `None` if it is not complete.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let name = value.get("name")?.as_str()?.to_owned();
        let arguments = value.get("arguments")?.to_string();
        let function = CalledFunction { name, arguments };
        Some(ToolCall { index: None, id: ids::new("call"), kind: ToolKind::Function, function })
    }

    /// The call with its index in the answer, as chunks have it, or without.
    pub(super) fn with_index(self, index: impl Into<Option<usize>>) -> Self {
        ToolCall { index: index.into(), ..self }
    }

    /// The call as chat templates read it: arguments as an object, if they are one.
    pub(super) fn for_template(&self) -> Value {
        let arguments = serde_json::from_str::<Value>(&self.function.arguments).ok();
        let arguments = arguments.filter(Value::is_object);
        let arguments = arguments.unwrap_or_else(|| self.function.arguments.clone().into());
        json!({ "id": self.id, "type": "function", "function": { "name": self.function.name, "arguments": arguments } })
    }
}

/// The constraint of an answer that calls a tool; `None` for one that is any text.
///
/// # Errors
/// Status 400 for a choice without tools, an unknown function, and `auto`.
pub(super) fn constraint(
    tools: Option<&[Tool]>,
    choice: Option<&ToolChoice>,
) -> ApiResult<Option<ConstraintKind>> {
    let tools = tools.unwrap_or_default();
    let choice = match (tools, choice) {
        ([], None | Some(ToolChoice::Mode(ToolMode::None | ToolMode::Auto))) => return Ok(None),
        ([], Some(_)) => return Err(ApiError::invalid("tool_choice", "tool_choice needs tools")),
        (_, Some(ToolChoice::Mode(ToolMode::None))) => return Ok(None),
        (_, None | Some(ToolChoice::Mode(ToolMode::Auto))) => {
            return Err(ApiError::unsupported(
                "tool_choice",
                "set it to none, to required, or to a function: whether a text calls a tool is not known",
            ));
        }
        (_, Some(choice)) => choice,
    };
    let called: Vec<&Tool> = match choice {
        ToolChoice::Mode(_) => tools.iter().collect(),
        ToolChoice::Function(named) => {
            let name = &named.function.name;
            let found: Vec<&Tool> = tools.iter().filter(|tool| tool.function.name == *name).collect();
            if found.is_empty() {
                let message = format!("tool_choice is the function {name:?}, which tools does not have");
                return Err(ApiError::invalid("tool_choice", message));
            }
            found
        }
    };
    Ok(Some(ConstraintKind::JsonSchema(schema(&called))))
}

/// A schema of a call of one of the tools.
fn schema(tools: &[&Tool]) -> Value {
    let call = |tool: &&Tool| {
        let arguments = tool.function.parameters.clone().unwrap_or_else(|| json!({ "type": "object" }));
        json!({
            "type": "object",
            "properties": { "name": { "const": tool.function.name }, "arguments": arguments },
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    };
    let mut calls: Vec<Value> = tools.iter().map(call).collect();
    match calls.len() {
        1 => calls.remove(0),
        _ => json!({ "anyOf": calls }),
    }
}
