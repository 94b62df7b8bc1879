//! The error type of this crate.

use std::path::PathBuf;

use jetmoe_checkpoint::names;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why text could not be converted to tokens or back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file next to `tokenizer.json` cannot be read or parsed.
    #[error(transparent)]
    File(#[from] jetmoe_checkpoint::Error),
    /// The folder has a tokenizer in SentencePiece's format only.
    #[error(
        "{} is missing in {}\n  there is only {}; convert it with transformers: \
         AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        names::TOKENIZER, folder.display(), names::SENTENCEPIECE_TOKENIZER
    )]
    SentencePieceOnly {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
    /// `tokenizer.json` cannot be loaded, or it cannot decode token ids.
    #[error("{} cannot be used as a tokenizer: {source}\n  download or copy it again, or save it again with transformers", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table of a tokenizer contradicts another one, or is larger than a tokenizer's can be.
    #[error(
        "{}: {key}: {problem}\n  download or copy the file again, or save it again with transformers",
        path.display()
    )]
    TokenizerTable {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A text cannot be encoded.
    #[error("the text cannot be encoded by {}: {source}", path.display())]
    Encode {
        /// `tokenizer.json`.
        path: PathBuf,
        /// What the tokenizer reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The chat template cannot be parsed.
    #[error("chat template: {source}")]
    ChatTemplate {
        /// What the template engine reported, with the line.
        source: minijinja::Error,
    },
    /// A chat template in a file of the checkpoint cannot be parsed.
    #[error(
        "{}{} is no valid chat template: {source}\n  correct the template, or remove it",
        path.display(),
        key.as_ref().map_or_else(String::new, |key| format!(": {key}"))
    )]
    ChatTemplateFile {
        /// The file.
        path: PathBuf,
        /// The key in a JSON file, such as `chat_template` or, for one of several templates, `chat_template.tool_use`.
        key: Option<String>,
        /// What the template engine reported, with the line.
        source: minijinja::Error,
    },
    /// The chat template rejects a conversation, or fails while it renders one.
    #[error("chat template: {source}")]
    Conversation {
        /// What the template raised or the template engine reported, with the line.
        source: minijinja::Error,
    },
    /// The chat template takes more steps or memory than a conversation of this size justifies.
    #[error(
        "{}{}: {source}\n  shorten the conversation, or correct the template",
        path.as_ref().map_or_else(|| "chat template".to_owned(), |path| path.display().to_string()),
        key.as_ref().map_or_else(String::new, |key| format!(": {key}"))
    )]
    ChatTemplateLimit {
        /// The file, if the template is in one.
        path: Option<PathBuf>,
        /// The key in a JSON file.
        key: Option<String>,
        /// Which limit, with the number and the line.
        source: minijinja::Error,
    },
    /// The template engine cannot be started, or it panics.
    #[error("the template engine failed: {problem}\n  try again; if it fails again, report the template")]
    ChatTemplateEngine {
        /// The operating system's error, or the message of the panic.
        problem: String,
    },
    /// A variable of the chat template, or a key of a message, has lists and objects nested too deep.
    #[error(
        "chat template: the value of {name:?} is nested deeper than {limit} levels\n  give it as a text, or with fewer levels"
    )]
    TooDeep {
        /// Name of the variable, or the key of the message.
        name: String,
        /// Most levels.
        limit: usize,
    },
    /// A message contains the text of a special token, and the chat template does not pass the message on unchanged.
    #[error(
        "a message contains {token:?}, which is a special token, and the chat template reads it or changes the text\n  \
         remove it from the message, or turn split_special_tokens off: then it is a control token"
    )]
    SpecialTokenInMessage {
        /// The first special token that was found.
        token: String,
    },
    /// A text contains characters that are reserved while special tokens are told from text.
    #[error("the text contains U+FDD0 or U+FDD1, which are no characters; remove them")]
    Noncharacter,
    /// The model has no chat template.
    #[error(
        "chat template: the model has none\n  put {} into the checkpoint and export again, or give the prompt as \
         plain text",
        names::CHAT_TEMPLATE
    )]
    NoChatTemplate,
    /// The model has several chat templates, and none of the requested name.
    #[error(
        "chat template: {}\n  the model has: {}",
        name.as_ref().map_or_else(
            || "the model has several and none called \"default\"; select one by name".to_owned(),
            |name| format!("the model has none called {name:?}"),
        ),
        names.join(", ")
    )]
    ChatTemplateName {
        /// The requested name.
        name: Option<String>,
        /// The names that there are.
        names: Vec<String>,
    },
    /// A stop string is empty: it would match before the first character.
    #[error("a stop string is empty; give at least one character")]
    EmptyStopString,
}
