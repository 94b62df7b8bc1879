//! Special tokens: which they are, and in which of the tokenizer's files.
//!
//! The rules are those of transformers 5.23 (`tokenization_utils_base.py`, `_from_pretrained`), which reads what 4.30 and later
//! wrote: `tokenizer_config.json` names them; without `added_tokens_decoder` in it, `special_tokens_map.json` comes first and
//! `added_tokens.json` holds more tokens.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use jetmoe_checkpoint::{names, read_json_if_exists};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::Result;
use crate::tokenizer_tables::{Problem, check_id, check_text};

/// The special tokens of a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTokens {
    /// `bos_token`, `eos_token` and so on.
    pub(crate) named: BTreeMap<String, String>,
    /// Tokens without such a name.
    extra: Vec<String>,
    /// Tokens that `tokenizer.json` may lack, by id.
    added: BTreeMap<usize, AddedToken>,
}

/// Lists of tokens without a name, newer and older spelling.
const EXTRA: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

impl SpecialTokens {
    /// Reads the files of a folder besides `tokenizer.json`. `config` is `tokenizer_config.json`.
    pub(crate) fn open(folder: &Path, config: &Map<String, Value>) -> Result<Self> {
        let mut tokens = SpecialTokens::default();
        let config_path = folder.join(names::TOKENIZER_CONFIG);
        tokens.read(config).map_err(|problem| problem.in_file(&config_path))?;
        if let Some(Value::Object(decoder)) = config.get("added_tokens_decoder") {
            for (id, token) in decoder {
                if let (Ok(id), Some(token)) = (id.parse(), added_token(token)) {
                    let id = checked("added_tokens_decoder", &token.content, id);
                    tokens.added.insert(id.map_err(|problem| problem.in_file(&config_path))?, token);
                }
            }
            return Ok(tokens);
        }
        let read = |name: &str| -> Result<Map<String, Value>> {
            Ok(read_json_if_exists(&folder.join(name))?.unwrap_or_default())
        };
        tokens
            .read(&read(names::SPECIAL_TOKENS_MAP)?)
            .map_err(|problem| problem.in_file(&folder.join(names::SPECIAL_TOKENS_MAP)))?;
        let special: HashSet<String> = tokens.all().cloned().collect();
        for (text, id) in read(names::ADDED_TOKENS)? {
            if let Some(id) = id.as_u64() {
                let path = folder.join(names::ADDED_TOKENS);
                let id =
                    checked("the list of tokens", &text, id).map_err(|problem| problem.in_file(&path))?;
                let is_special = special.contains(&text);
                tokens.added.insert(id, AddedToken::from(text, is_special));
            }
        }
        Ok(tokens)
    }

    /// Reads tokens that have a name, and lists of others.
    fn read(&mut self, object: &Map<String, Value>) -> Result<(), Problem> {
        for (key, value) in object {
            if key.ends_with("_token")
                && let Some(text) = checked_text(key, value)?
            {
                self.named.insert(key.clone(), text);
            }
        }
        for key in EXTRA {
            match object.get(key) {
                Some(Value::Array(list)) => {
                    for token in list {
                        self.extra.extend(checked_text(key, token)?);
                    }
                }
                // a name for each, as templates use it
                Some(Value::Object(named)) => {
                    for (name, token) in named {
                        let text = checked_text(&format!("{key}.{name}"), token)?;
                        self.named.extend(text.map(|text| (name.clone(), text)));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.named.values().chain(&self.extra)
    }

    /// Adds the tokens that the tokenizer does not have as added tokens, in the order of their ids, as transformers does. All at
    /// once: the tokenizer builds its tables again after every addition.
    pub(crate) fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
        let vocabulary = tokenizer.get_added_vocabulary();
        let known = vocabulary.get_vocab().keys();
        // whether each is special
        let mut known: HashMap<&str, bool> =
            known.map(|text| (text.as_str(), vocabulary.is_special_token(text))).collect();
        let named: HashSet<&String> = self.named.values().collect();
        let mut missing = Vec::new();
        for token in self.added.values() {
            let text = token.content.as_str();
            let is_special = token.special || named.contains(&token.content);
            let is_missing = match known.get(text) {
                None => true,
                // a token can become special, as its own entry says
                Some(was_special) => token.special && !was_special,
            };
            if is_missing {
                missing.push(token.clone().special(is_special));
                known.insert(text, is_special);
            }
        }
        for text in self.all() {
            if known.insert(text, true).is_none() {
                missing.push(AddedToken::from(text.clone(), true));
            }
        }
        tokenizer.add_tokens(missing).map(drop)
    }
}

/// The id of an added token, within the limits.
fn checked(key: &str, text: &str, id: u64) -> Result<usize, Problem> {
    check_text(key, text)?;
    check_id(key, text, id)
}

/// The text of a token, within the limit.
fn checked_text(key: &str, token: &Value) -> Result<Option<String>, Problem> {
    let text = text_of(token);
    text.iter().try_for_each(|text| check_text(key, text))?;
    Ok(text)
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
