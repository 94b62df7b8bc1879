//! Chat templates, rendered as transformers' `apply_chat_template` renders them.

use std::collections::BTreeMap;

use minijinja::{Environment, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::{Error, Result, jinja, limits, python};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`; a template may accept others.
    pub role: String,
    /// The text of the turn.
    pub content: String,
    /// What else a template reads of a turn, such as `name`, `tool_calls` or `reasoning_content`.
    #[serde(flatten)]
    pub extra: Map<String, Json>,
}

impl ChatMessage {
    /// A turn of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: content.into(), extra: Map::new() }
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

    /// Sets a key of [`ChatMessage::extra`].
    #[must_use]
    pub fn with_extra(mut self, key: impl Into<String>, value: impl Into<Json>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    /// What a template sees: no key without a value, and the text of reasoning under each of its names.
    fn for_template(&self) -> Map<String, Json> {
        const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
        let mut message = Map::new();
        message.insert("role".to_owned(), self.role.clone().into());
        message.insert("content".to_owned(), self.content.clone().into());
        let extra = self.extra.iter().filter(|(_, value)| !value.is_null());
        message.extend(extra.map(|(key, value)| (key.clone(), value.clone())));
        if let Some(reasoning) = REASONING.iter().find_map(|key| message.get(*key).cloned()) {
            message.entry("thinking").or_insert_with(|| reasoning.clone());
            message.insert("reasoning_content".to_owned(), reasoning);
        }
        message
    }
}

/// How a conversation is rendered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChatOptions {
    /// Name of the template. `None`, the default, takes `tool_use` if there is one and a variable `tools`, else `default`.
    pub template: Option<String>,
    /// Variables of the template besides the conversation, such as `tools`, `documents` or `enable_thinking`. They replace special
    /// tokens of the same name. Without them `tools` and `documents` are none.
    pub variables: Map<String, Json>,
    /// Whether the text ends where the assistant's answer begins. On by default.
    pub add_generation_prompt: bool,
    /// Whether the text of special tokens in messages, `tools` and `documents` is plain text, so that only the template's are
    /// control tokens. On by default.
    pub split_special_tokens: bool,
}

impl Default for ChatOptions {
    fn default() -> Self {
        ChatOptions {
            template: None,
            variables: Map::new(),
            add_generation_prompt: true,
            split_special_tokens: true,
        }
    }
}

impl ChatOptions {
    /// Sets [`ChatOptions::template`].
    #[must_use]
    pub fn with_template(mut self, template: impl Into<Option<String>>) -> Self {
        self.template = template.into();
        self
    }

    /// Sets one of [`ChatOptions::variables`].
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets [`ChatOptions::add_generation_prompt`].
    #[must_use]
    pub fn with_add_generation_prompt(mut self, add_generation_prompt: bool) -> Self {
        self.add_generation_prompt = add_generation_prompt;
        self
    }

    /// Sets [`ChatOptions::split_special_tokens`].
    #[must_use]
    pub fn with_split_special_tokens(mut self, split_special_tokens: bool) -> Self {
        self.split_special_tokens = split_special_tokens;
        self
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
        environment.set_unknown_method_callback(python::call_method);
        jinja::add_to(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: &str| python::strftime_now(format));
        environment.add_filter("tojson", python::to_json);
        // Jinja's line ends
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        environment
            .add_template_owned(TEMPLATE, without_generation_tags(&source))
            .map_err(|source| Error::ChatTemplate { source })?;
        Ok(ChatTemplate { environment, special_tokens })
    }

    /// Renders a conversation. With `add_generation_prompt` the text ends where the assistant's answer begins. The
    /// result contains the special tokens as text, so encode it without adding any.
    ///
    /// # Errors
    /// [`Error::Conversation`] if the template raises an error, for example for two consecutive turns of one role.
    /// [`Error::TooDeep`] for a value of a message with more than 128 levels of lists and objects.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &ChatOptions { add_generation_prompt, ..ChatOptions::default() })
    }

    /// Renders a conversation with the variables of `options`; its name of a template is not used.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and [`Error::TooDeep`] for such a variable.
    pub fn render_with(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        // before they are copied
        let mut values = messages.iter().flat_map(|message| &message.extra).chain(&options.variables);
        if let Some((name, _)) = values.find(|(_, value)| !limits::is_within_depth(value)) {
            return Err(Error::TooDeep { name: name.clone(), limit: limits::MAX_INPUT_DEPTH });
        }
        let messages: Vec<Map<String, Json>> = messages.iter().map(ChatMessage::for_template).collect();
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        context.extend(self.special_tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text))));
        let variables = options.variables.iter();
        context.extend(variables.map(|(name, value)| (name.as_str(), Value::from_serialize(value))));
        context.insert("messages", Value::from_serialize(messages));
        context.insert("add_generation_prompt", Value::from(options.add_generation_prompt));
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render(context))
            .map_err(|source| Error::Conversation { source })
    }
}

/// Replaces transformers' `{% generation %}` … `{% endgeneration %}`, which mark the assistant's tokens for training
/// and render their content unchanged, by a block that keeps its variables to itself too.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end);
        result.push_str(before);
        match tag.trim_start_matches("{%").trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => result.push_str(&tag.replace("generation", "with")),
            "endgeneration" => result.push_str(&tag.replace("endgeneration", "endwith")),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result + rest
}
