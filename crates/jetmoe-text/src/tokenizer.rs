//! A checkpoint's tokenizer: `tokenizer.json`, with the chat template that comes with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{names, read_json};
use serde_json::Value;

use crate::{ChatTemplate, Error, Result};

/// A checkpoint's tokenizer with its chat template.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    chat_template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, if present, `tokenizer_config.json` and `chat_template.jinja`. `None` if the folder
    /// has no tokenizer.
    ///
    /// # Errors
    /// A file that cannot be used, or a tokenizer in SentencePiece's format only.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(names::TOKENIZER);
        if !path.is_file() {
            if folder.join(names::SENTENCEPIECE_TOKENIZER).is_file() {
                return Err(Error::SentencePieceOnly { folder: folder.to_owned() });
            }
            return Ok(None);
        }
        let mut inner = tokenizers::Tokenizer::from_file(&path).map_err(failed(&path))?;
        // generation and classification pad and truncate: they know the model's limits and report what they do
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed(&path))?;
        let config_path = folder.join(names::TOKENIZER_CONFIG);
        let config = if config_path.is_file() { read_json(&config_path)? } else { Value::Null };
        let chat_template = ChatTemplate::open(folder, &config, special_tokens(&config))?;
        Ok(Some(Tokenizer { path, inner, chat_template }))
    }

    /// Token ids of a text. `add_special_tokens` prepends the begin-of-sequence token, as in training.
    ///
    /// # Errors
    /// [`Error::Encode`] if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        self.inner
            .encode(text, add_special_tokens)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|source| Error::Encode { path: self.path.clone(), source })
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot decode the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(failed(&self.path))
    }

    /// Number of tokens, including added ones.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Text of a token id, such as `</s>`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Id of a token given by its text, such as `</s>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The chat template, if the checkpoint has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }
}

fn failed(path: &Path) -> impl FnOnce(tokenizers::Error) -> Error {
    |source| Error::Tokenizer { path: path.to_owned(), source }
}

/// `bos_token`, `eos_token` and so on, each a string or an object with `content`.
fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    let Some(object) = config.as_object() else { return BTreeMap::new() };
    object
        .iter()
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| {
            let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str))?;
            Some((key.clone(), text.to_owned()))
        })
        .collect()
}
