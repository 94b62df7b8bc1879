//! The chat templates of a checkpoint, by name.
//!
//! As in transformers 5.23, files of their own replace what `tokenizer_config.json` holds: `chat_template.jinja` is the template
//! `default`, and each file in `additional_chat_templates/` is named like the file. `chat_template.json`, which processors of
//! transformers 4 wrote, is read if there is no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{
    additional_chat_templates, names, read_json_if_exists, read_text, read_text_if_exists,
};
use serde_json::{Map, Value as Json};

use crate::chat_template::Origin;
use crate::{ChatMessage, ChatOptions, ChatTemplate, Error, Result};

/// The template that is taken without a name, and the one that is taken with tools.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat templates of a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChatTemplates(BTreeMap<String, ChatTemplate>);

/// A template before its special tokens are known.
struct Source {
    name: String,
    text: String,
    origin: Origin,
}

impl ChatTemplates {
    /// Reads every template of a folder, and compiles none.
    pub(crate) fn open(
        folder: &Path,
        tokenizer_config: &Map<String, Json>,
        special_tokens: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut sources = files(folder)?;
        if sources.is_empty() {
            sources = named(&folder.join(names::TOKENIZER_CONFIG), tokenizer_config);
        }
        let old = folder.join(names::CHAT_TEMPLATE_JSON);
        if sources.is_empty()
            && let Some(object) = read_json_if_exists::<Map<String, Json>>(&old)?
        {
            sources = named(&old, &object);
        }
        let template = |Source { name, text, origin }| {
            (name, ChatTemplate::unchecked(&text, Some(origin), special_tokens.clone()))
        };
        Ok(ChatTemplates(sources.into_iter().map(template).collect()))
    }

    /// Compiles every template, to find syntax errors.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.values().try_for_each(ChatTemplate::check)
    }

    /// The template that holds without a name.
    pub(crate) fn default_template(&self) -> Option<&ChatTemplate> {
        self.0.get(DEFAULT)
    }

    /// Whether a template [reads](ChatTemplate::reads) a name.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.0.values().any(|template| template.reads(name))
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
fn files(folder: &Path) -> Result<Vec<Source>> {
    let source = |name: &str, path: PathBuf, text| {
        let origin = Origin { path, key: None };
        Source { name: name.to_owned(), text, origin }
    };
    let single = folder.join(names::CHAT_TEMPLATE);
    let text = read_text_if_exists(&single)?;
    let mut sources: Vec<_> = text.map(|text| source(DEFAULT, single, text)).into_iter().collect();
    for file in additional_chat_templates(folder)? {
        if let Some(name) = names::additional_chat_template(&file) {
            let path = folder.join(&file);
            let text = read_text(&path)?;
            sources.push(source(name, path, text));
        }
    }
    Ok(sources)
}

/// The templates under the key of a JSON file: a single template, or a list or an object of named ones.
fn named(path: &Path, object: &Map<String, Json>) -> Vec<Source> {
    const KEY: &str = "chat_template";
    let source = |name: &str, text: &str, key: String| Source {
        name: name.to_owned(),
        text: text.to_owned(),
        origin: Origin { path: path.to_owned(), key: Some(key) },
    };
    let one_of_several = |name: &str, text: &str| source(name, text, format!("{KEY}.{name}"));
    let text = |entry: &Json, key: &str| Some(entry.get(key)?.as_str()?.to_owned());
    match object.get(KEY) {
        Some(Json::String(single)) => vec![source(DEFAULT, single, KEY.to_owned())],
        Some(Json::Array(list)) => list
            .iter()
            .filter_map(|entry| Some(one_of_several(&text(entry, "name")?, &text(entry, "template")?)))
            .collect(),
        Some(Json::Object(named)) => {
            named.iter().filter_map(|(name, value)| Some(one_of_several(name, value.as_str()?))).collect()
        }
        _ => Vec::new(),
    }
}
