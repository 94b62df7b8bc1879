//! Chat templates, rendered as transformers' `apply_chat_template` renders them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::engine::{self, Failure};
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

/// A chat template with the special tokens that it may refer to.
///
/// It may be of unknown origin: compiling and rendering one ends within limits of stack, memory and steps. It is compiled when it
/// is used.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    origin: Option<Origin>,
    special_tokens: BTreeMap<String, String>,
}

/// Where a template is: a file, and the key in a JSON file.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) path: PathBuf,
    pub(crate) key: Option<String>,
}

impl ChatTemplate {
    /// A template whose syntax is checked. `special_tokens` maps names such as `eos_token` to their text.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] for a syntax error, or a template that is too large.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let template = ChatTemplate::unchecked(source, None, special_tokens);
        template.check()?;
        Ok(template)
    }

    /// A template that is first compiled when it is used.
    pub(crate) fn unchecked(
        source: &str,
        origin: Option<Origin>,
        special_tokens: BTreeMap<String, String>,
    ) -> Self {
        // Jinja's line ends
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        ChatTemplate { source: without_generation_tags(&source).into(), origin, special_tokens }
    }

    /// Whether an expression of the template has a name or a text, such as the variable `tools` or the role `'tool'`. What it does
    /// with it is not known.
    pub fn reads(&self, name: &str) -> bool {
        // text between tags is printed, and only after a tag begins can a name be read
        let tags = self.source.split("{%").flat_map(|part| part.split("{{")).skip(1);
        tags.filter_map(|part| part.split("%}").next()?.split("}}").next()).any(|tag| {
            let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
            tag.split(|letter| !is_word(letter)).any(|word| word == name)
        })
    }

    /// Compiles the template, to find its syntax errors.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`], or [`Error::ChatTemplateFile`] for a template in a file.
    pub fn check(&self) -> Result<()> {
        engine::check(&self.source).map_err(|failure| self.error(failure))
    }

    fn error(&self, failure: Failure) -> Error {
        match (failure, self.origin.clone()) {
            (Failure::Template(source), None) => Error::ChatTemplate { source },
            (Failure::Template(source), Some(Origin { path, key })) => {
                Error::ChatTemplateFile { path, key, source }
            }
            (Failure::Rendering(source), _) => Error::Conversation { source },
            (Failure::Engine(problem), _) => Error::ChatTemplateEngine { problem },
            (Failure::Limit(source), origin) => {
                let (path, key) = origin.map_or((None, None), |origin| (Some(origin.path), origin.key));
                Error::ChatTemplateLimit { path, key, source }
            }
        }
    }

    /// Renders a conversation. With `add_generation_prompt` the text ends where the assistant's answer begins. The
    /// result contains the special tokens as text, so encode it without adding any.
    ///
    /// # Errors
    /// [`Error::Conversation`] if the template raises an error, for example for two consecutive turns of one role.
    /// [`Error::TooDeep`] for a value of a message with more than 128 levels of lists and objects. [`Error::ChatTemplateLimit`] if
    /// it takes more steps or memory than the conversation justifies, and the errors of [`ChatTemplate::check`].
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
        let messages: Vec<Json> =
            messages.iter().map(|message| Json::Object(message.for_template())).collect();
        let mut variables: BTreeMap<&str, Json> = BTreeMap::new();
        variables.insert("tools", Json::Null);
        variables.insert("documents", Json::Null);
        variables.extend(self.special_tokens.iter().map(|(name, text)| (name.as_str(), text.clone().into())));
        variables.extend(options.variables.iter().map(|(name, value)| (name.as_str(), value.clone())));
        variables.insert("messages", messages.into());
        variables.insert("add_generation_prompt", options.add_generation_prompt.into());
        engine::render(&self.source, environment, variables, &engine::budget::LIMITS)
            .map_err(|failure| self.error(failure))
    }
}

/// The filters, tests and functions of a template.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(python::call_method);
    jinja::add_to(&mut environment);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: &str| python::strftime_now(format));
    environment.add_filter("tojson", python::to_json);
    environment
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_reads_the_names_in_its_tags() {
        let source = "tools {% for message in messages %}{{ message['role'] }} of {% endfor %}{{ x.name }}";
        let template = ChatTemplate::new(source, BTreeMap::new()).unwrap();
        let read = ["messages", "role", "name", "tools", "of", "rol"].map(|name| template.reads(name));
        assert_eq!(read, [true, true, true, false, false, false]);
    }
}
