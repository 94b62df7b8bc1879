//! Special tokens: which they are, and in which of the tokenizer's files.
//!
//! The rules are those of transformers 5.23 (`tokenization_utils_base.py`, `_from_pretrained`), which reads what 4.30 and later
//! wrote: `tokenizer_config.json` names them; without `added_tokens_decoder` in it, `special_tokens_map.json` comes first and
//! `added_tokens.json` holds more tokens.

use std::collections::BTreeMap;
use std::path::Path;

use jetmoe_checkpoint::{names, read_json_if_exists};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::Result;

/// The special tokens of a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTokens {
    /// `bos_token`, `eos_token` and so on.
    pub(crate) named: BTreeMap<String, String>,
    /// Tokens without such a name.
    extra: Vec<String>,
    /// Tokens that `tokenizer.json` may lack, by id.
    added: BTreeMap<u32, AddedToken>,
}

/// Lists of tokens without a name, newer and older spelling.
const EXTRA: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

impl SpecialTokens {
    /// Reads the files of a folder besides `tokenizer.json`. `config` is `tokenizer_config.json`.
    pub(crate) fn open(folder: &Path, config: &Map<String, Value>) -> Result<Self> {
        let mut tokens = SpecialTokens::default();
        tokens.read(config);
        if let Some(Value::Object(decoder)) = config.get("added_tokens_decoder") {
            for (id, token) in decoder {
                if let (Ok(id), Some(token)) = (id.parse(), added_token(token)) {
                    tokens.added.insert(id, token);
                }
            }
            return Ok(tokens);
        }
        let read = |name: &str| -> Result<Map<String, Value>> {
            Ok(read_json_if_exists(&folder.join(name))?.unwrap_or_default())
        };
        tokens.read(&read(names::SPECIAL_TOKENS_MAP)?);
        for (text, id) in read(names::ADDED_TOKENS)? {
            if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                let is_special = tokens.all().any(|token| *token == text);
                tokens.added.insert(id, AddedToken::from(text, is_special));
            }
        }
        Ok(tokens)
    }

    fn read(&mut self, object: &Map<String, Value>) {
        for (key, value) in object {
            if key.ends_with("_token") {
                self.named.extend(text_of(value).map(|text| (key.clone(), text)));
            }
        }
        for key in EXTRA {
            match object.get(key) {
                Some(Value::Array(list)) => self.extra.extend(list.iter().filter_map(text_of)),
                // a name for each, as templates use it
                Some(Value::Object(named)) => {
                    let texts =
                        named.iter().filter_map(|(name, token)| Some((name.clone(), text_of(token)?)));
                    self.named.extend(texts);
                }
                _ => {}
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.named.values().chain(&self.extra)
    }

    /// Adds the tokens that the tokenizer does not have as added tokens, in the order of their ids, as transformers does.
    pub(crate) fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
        let has = |tokenizer: &tokenizers::Tokenizer, text: &str| {
            tokenizer.get_added_vocabulary().get_vocab().contains_key(text)
        };
        for token in self.added.values() {
            let is_named = self.named.values().any(|text| *text == token.content);
            if token.special || is_named {
                let is_special = tokenizer.get_added_vocabulary().is_special_token(&token.content);
                if !is_special && (token.special || !has(tokenizer, &token.content)) {
                    tokenizer.add_special_tokens([token.clone().special(true)])?;
                }
            } else if !has(tokenizer, &token.content) {
                tokenizer.add_tokens([token.clone()])?;
            }
        }
        for text in self.all() {
            if !has(tokenizer, text) {
                tokenizer.add_special_tokens([AddedToken::from(text.clone(), true)])?;
            }
        }
        Ok(())
    }
}

/// A token is written as a text or as an object with its text.
fn text_of(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(str::to_owned)
}

fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    let token = AddedToken::from(text_of(value)?, special)
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .single_word(flag("single_word").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}
