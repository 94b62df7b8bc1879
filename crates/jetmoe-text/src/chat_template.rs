//! Chat templates, rendered as transformers' `apply_chat_template` renders them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jetmoe_checkpoint::{names, read_text};
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`; a template may accept others.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl ChatMessage {
    /// A turn of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: content.into() }
    }

    /// Instructions for the whole conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// A compiled chat template with the special tokens that it may refer to.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
}

const TEMPLATE: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template. `special_tokens` maps names such as `eos_token` to their text.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] for a syntax error.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let mut environment = Environment::new();
        // transformers renders with these two options; they control line breaks around blocks
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(TEMPLATE, without_generation_tags(source))
            .map_err(|source| Error::ChatTemplate { source })?;
        Ok(ChatTemplate { environment, special_tokens })
    }

    /// The template of a checkpoint folder: `chat_template.jinja`, else the one in `tokenizer_config.json`.
    pub(crate) fn open(
        folder: &Path,
        tokenizer_config: &Value,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Option<Self>> {
        let file = folder.join(names::CHAT_TEMPLATE);
        let source = if file.is_file() { Some(read_text(&file)?) } else { template_in(tokenizer_config) };
        source.map(|source| Self::new(&source, special_tokens)).transpose()
    }

    /// Renders a conversation. With `add_generation_prompt` the text ends where the assistant's answer begins. The
    /// result contains the special tokens as text, so encode it without adding any.
    ///
    /// # Errors
    /// [`Error::Conversation`] if the template raises an error, for example for two consecutive turns of one role.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| {
                template.render(context! {
                    messages,
                    add_generation_prompt,
                    tools => (),
                    documents => (),
                    ..minijinja::Value::from_serialize(&self.special_tokens)
                })
            })
            .map_err(|source| Error::Conversation { source })
    }
}

/// transformers' `tojson` is Python's `json.dumps`: no HTML escapes, a space after commas and colons.
fn to_json(value: minijinja::Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut json, OneLine)),
        Some(width) => {
            let indent = " ".repeat(width.min(MAX_INDENT));
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, pretty))
        }
    };
    let failed = |message: String| minijinja::Error::new(ErrorKind::InvalidOperation, message);
    written.map_err(|error| failed(format!("tojson: {error}")))?;
    String::from_utf8(json).map_err(|error| failed(format!("tojson: {error}")))
}

/// Limit for the indentation that a template may request.
const MAX_INDENT: usize = 100;

/// Python's separators for JSON on one line.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Replaces transformers' `{% generation %}` … `{% endgeneration %}`, which mark the assistant's tokens for training
/// and render their content unchanged.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end);
        result.push_str(before);
        match tag.trim_start_matches("{%").trim_matches(['-', '+', ' ', '\n']) {
            "generation" => result.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => result.push_str(&tag.replace("endgeneration", "endif")),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result + rest
}

/// The single template, or the one named `default` of several.
fn template_in(tokenizer_config: &Value) -> Option<String> {
    match tokenizer_config.get(TEMPLATE)? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template").and_then(Value::as_str))
            .map(str::to_owned),
        _ => None,
    }
}
