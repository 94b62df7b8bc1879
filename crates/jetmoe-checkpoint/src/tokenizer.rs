use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{ChatTemplate, Error, Result, names, read_json};

/// A checkpoint's tokenizer with its chat template.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    chat_template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where present, `tokenizer_config.json` and `chat_template.jinja`; `None` where the
    /// folder has no tokenizer at all.
    ///
    /// # Errors
    /// A file that cannot be used, or a tokenizer in another format only.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(names::TOKENIZER);
        if !path.is_file() {
            if folder.join(names::SENTENCEPIECE_TOKENIZER).is_file() {
                return Err(Error::MissingFile {
                    file: names::TOKENIZER.to_owned(),
                    folder: folder.to_owned(),
                    advice: "there is only tokenizer.model; convert it with transformers: \
                             AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
                        .to_owned(),
                });
            }
            return Ok(None);
        }
        let mut inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|error| Error::Tokenizer { path: path.clone(), message: error.to_string() })?;
        // padding and cutting are the runtime's business: it knows the model's limits and says so
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| Error::Tokenizer { path: path.clone(), message: error.to_string() })?;
        let config = read_config(&folder.join(names::TOKENIZER_CONFIG))?;
        let chat_template = ChatTemplate::open(folder, &config, special_tokens(&config))?;
        Ok(Some(Tokenizer { path, inner, chat_template }))
    }

    /// Token ids of a text; `add_special_tokens` puts the begin-of-sequence token in front, as the model was trained.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        self.inner
            .encode(text, add_special_tokens)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(self.failed())
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(self.failed())
    }

    /// Number of tokens, added ones included.
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

    /// The chat template, where the checkpoint has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    fn failed(&self) -> impl FnOnce(tokenizers::Error) -> Error {
        let path = self.path.clone();
        |error| Error::Tokenizer { path, message: error.to_string() }
    }
}

fn read_config(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    read_json(path)
}

/// `bos_token`, `eos_token` and the like, given as text or as an object with `content`.
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
