//! The chat templates of a checkpoint, by name.
//!
//! As in transformers 5.23, files of their own replace what `tokenizer_config.json` holds: `chat_template.jinja` is the template
//! `default`, and each file in `additional_chat_templates/` is named like the file. `chat_template.json`, which processors of
//! transformers 4 wrote, is read if there is no other.

use std::collections::BTreeMap;
use std::path::Path;

use jetmoe_checkpoint::{
    additional_chat_templates, names, read_json_if_exists, read_text, read_text_if_exists,
};
use serde_json::{Map, Value as Json};

use crate::{ChatMessage, ChatOptions, ChatTemplate, Error, Result};

/// The template that is taken without a name, and the one that is taken with tools.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat templates of a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChatTemplates(BTreeMap<String, ChatTemplate>);

impl ChatTemplates {
    /// Compiles every template of a folder.
    pub(crate) fn open(
        folder: &Path,
        tokenizer_config: &Map<String, Json>,
        special_tokens: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut sources = files(folder)?;
        if sources.is_empty() {
            sources = named(tokenizer_config.get("chat_template"));
        }
        if sources.is_empty() {
            let old = read_json_if_exists::<Map<String, Json>>(&folder.join(names::CHAT_TEMPLATE_JSON))?;
            sources = named(old.as_ref().and_then(|old| old.get("chat_template")));
        }
        let compile = |(name, source): (String, String)| {
            Ok((name, ChatTemplate::new(&source, special_tokens.clone())?))
        };
        Ok(ChatTemplates(sources.into_iter().map(compile).collect::<Result<_>>()?))
    }

    /// The template that holds without a name.
    pub(crate) fn default_template(&self) -> Option<&ChatTemplate> {
        self.0.get(DEFAULT)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Renders a conversation with the template that `options` select.
    pub(crate) fn render(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        self.select(options)?.render_with(messages, options)
    }

    fn select(&self, options: &ChatOptions) -> Result<&ChatTemplate> {
        if self.0.is_empty() {
            return Err(Error::NoChatTemplate);
        }
        let has_tools = options.variables.get("tools").is_some_and(|tools| !tools.is_null());
        let found = match &options.template {
            Some(name) => self.0.get(name),
            None => self.0.get(TOOL_USE).filter(|_| has_tools).or_else(|| self.default_template()),
        };
        found.ok_or_else(|| Error::ChatTemplateName {
            name: options.template.clone(),
            names: self.0.keys().cloned().collect(),
        })
    }
}

/// The templates in files of their own.
fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let single = read_text_if_exists(&folder.join(names::CHAT_TEMPLATE))?;
    let mut sources: Vec<_> = single.map(|source| (DEFAULT.to_owned(), source)).into_iter().collect();
    for file in additional_chat_templates(folder)? {
        if let Some(name) = names::additional_chat_template(&file) {
            sources.push((name.to_owned(), read_text(&folder.join(&file))?));
        }
    }
    Ok(sources)
}

/// A single template, or a list of named ones.
fn named(value: Option<&Json>) -> Vec<(String, String)> {
    let text = |entry: &Json, key: &str| Some(entry.get(key)?.as_str()?.to_owned());
    match value {
        Some(Json::String(source)) => vec![(DEFAULT.to_owned(), source.clone())],
        Some(Json::Array(list)) => {
            list.iter().filter_map(|entry| Some((text(entry, "name")?, text(entry, "template")?))).collect()
        }
        Some(Json::Object(named)) => named
            .iter()
            .filter_map(|(name, source)| Some((name.clone(), source.as_str()?.to_owned())))
            .collect(),
        _ => Vec::new(),
    }
}
