//! What the text of an answer must be like, in the forms of OpenAI and vLLM.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::blocking::blocking;
use crate::engine::{Constraint, ConstraintKind, Engine};
use crate::error::{ApiError, ApiResult};

/// What the text of an answer must be like, in OpenAI's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that is valid by a schema.
    JsonSchema {
        /// The schema.
        json_schema: JsonSchemaFormat,
    },
}

/// A named JSON schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonSchemaFormat {
    /// A name; it has no effect.
    pub(crate) name: String,
    /// A description; it has no effect, because no template shows it to the model.
    pub(crate) description: Option<String>,
    /// The schema; without it any JSON object.
    pub(crate) schema: Option<Value>,
    /// Accepted with either value: the schema always holds.
    pub(crate) strict: Option<bool>,
}

/// What the text of an answer must be like, in vLLM's form. One of the fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StructuredOutputs {
    /// A JSON schema, or its text.
    pub(crate) json: Option<Value>,
    /// A regular expression.
    pub(crate) regex: Option<String>,
    /// One of these texts.
    pub(crate) choice: Option<Vec<String>>,
    /// A grammar in Lark's syntax.
    pub(crate) grammar: Option<String>,
    /// A JSON object, if true.
    pub(crate) json_object: Option<bool>,
}

impl ResponseFormat {
    fn kind(&self) -> Option<ConstraintKind> {
        match self {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(ConstraintKind::JsonObject),
            ResponseFormat::JsonSchema { json_schema } => Some(match &json_schema.schema {
                Some(schema) => ConstraintKind::JsonSchema(schema.clone()),
                None => ConstraintKind::JsonObject,
            }),
        }
    }
}

impl StructuredOutputs {
    fn kind(&self) -> ApiResult<Option<ConstraintKind>> {
        let kinds = [
            self.json.as_ref().map(schema).transpose()?.map(ConstraintKind::JsonSchema),
            self.regex.clone().map(ConstraintKind::Regex),
            self.choice.clone().map(ConstraintKind::Choices),
            self.grammar.clone().map(ConstraintKind::Lark),
            self.json_object.filter(|is_set| *is_set).map(|_| ConstraintKind::JsonObject),
        ];
        let mut kinds = kinds.into_iter().flatten();
        match (kinds.next(), kinds.next()) {
            (kind, None) => Ok(kind),
            _ => Err(ApiError::invalid(
                "structured_outputs",
                "structured_outputs has several constraints, expected one",
            )),
        }
    }
}

/// A schema that may be given as a text.
fn schema(value: &Value) -> ApiResult<Value> {
    let Value::String(text) = value else { return Ok(value.clone()) };
    crate::json::parse(text.as_bytes()).map_err(|error| {
        ApiError::invalid(
            "structured_outputs.json",
            format!("the text is no JSON schema: {}", error.message()),
        )
    })
}

/// The constraint of a request, compiled for a model.
///
/// # Errors
/// Status 400 for two constraints, and for one that is not valid or not supported.
pub(crate) async fn constraint(
    engine: &Engine,
    format: Option<&ResponseFormat>,
    structured: Option<&StructuredOutputs>,
) -> ApiResult<Option<Constraint>> {
    let format = format.and_then(ResponseFormat::kind);
    let structured = structured.map(StructuredOutputs::kind).transpose()?.flatten();
    match (format, structured) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "structured_outputs",
            "both response_format and structured_outputs constrain the text, expected one",
        )),
        (Some(kind), None) => compile(engine, kind, "response_format").await.map(Some),
        (None, Some(kind)) => compile(engine, kind, "structured_outputs").await.map(Some),
    }
}

/// Compiles a constraint, which can take seconds.
pub(crate) async fn compile(engine: &Engine, kind: ConstraintKind, field: &str) -> ApiResult<Constraint> {
    let engine = engine.clone();
    let compiled = blocking("a constraint could not be compiled", move || engine.constraint(&kind)).await?;
    compiled.map_err(|refusal| ApiError::from(refusal).with_param(field))
}
