//! Reads `tokenizer.json`, after a check of its tables.
//!
//! `tokenizers` expects tables that fit together: it copies by lengths, indexes by names and recurses over nested components. What
//! it would abort, hang or take gigabytes on is refused before, with the key. Its panics are caught.

mod components;
mod expressions;

use std::path::Path;

use jetmoe_checkpoint::{catch_panics, read_bytes};
use serde_json::Value;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{AddedToken, ModelWrapper};

use crate::{Error, Result};

/// Values of all lists and objects of the file. The largest vocabularies, of 900,000 tokens, have 2.7 million.
const MAX_VALUES: usize = 4 << 20;
/// Ids are below it.
const MAX_IDS: usize = 1 << 24;
/// Bytes of a token. The model Unigram recurses over the bytes of a token when it is dropped.
const MAX_TOKEN_BYTES: usize = 1024;
/// Bytes of all tokens of the model Unigram, which takes about 250 bytes of memory for one.
const MAX_UNIGRAM_BYTES: usize = 8 << 20;
/// Characters of a word that the model WordPiece searches for tokens, which takes time in proportion to their square.
const MAX_WORD_CHARACTERS: u64 = 1000;
/// Bytes of what BPE and WordPiece add to the parts of a word. A part that is no token becomes a token for each of its bytes.
const MAX_AFFIX_BYTES: usize = 64;

/// What is wrong, and under which key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    key: String,
    problem: String,
}

impl Problem {
    fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Problem { key: key.into(), problem: problem.into() }
    }

    /// The error for a file.
    pub(crate) fn in_file(self, path: &Path) -> Error {
        Error::TokenizerTable { path: path.to_owned(), key: self.key, problem: self.problem }
    }
}

/// Reads the tokenizer, without padding and truncation: generation and classification pad and truncate, because they have the
/// model's limits and report what they do.
pub(crate) fn read(path: &Path) -> Result<tokenizers::Tokenizer> {
    let failed = |source| Error::Tokenizer { path: path.to_owned(), source };
    let bytes = read_bytes(path)?;
    // a value takes several times the memory of its text
    if most_values(&bytes) > MAX_VALUES {
        let problem = format!("it has more than {MAX_VALUES} values");
        return Err(Problem::new("tokenizer", problem).in_file(path));
    }
    let file: Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    drop(bytes);
    check(&file).map_err(|problem| problem.in_file(path))?;
    catch_panics(|| build(file), tokenizers::Error::from).map_err(failed)
}

/// As many values as a text of JSON can have, of its lists and objects: each is behind a comma or the first of its list or object.
fn most_values(text: &[u8]) -> usize {
    text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count()
}

/// Builds a tokenizer from a checked file. The model, which is nearly all of it, is built directly: as a part of the whole
/// `tokenizers` copies it twice to find out which it is.
fn build(mut file: Value) -> tokenizers::Result<tokenizers::Tokenizer> {
    let model = build_model(file["model"].take())?;
    let added: Option<Vec<AddedToken>> = serde_json::from_value(file["added_tokens"].take())?;
    if let Value::Object(file) = &mut file {
        for key in ["added_tokens", "padding", "truncation"] {
            file.remove(key);
        }
        file.insert("model".to_owned(), serde_json::to_value(WordLevel::default())?);
    }
    let mut tokenizer: tokenizers::Tokenizer = serde_json::from_value(file)?;
    tokenizer.with_model(model);
    tokenizer.add_tokens(added.unwrap_or_default())?;
    Ok(tokenizer)
}

fn build_model(mut model: Value) -> tokenizers::Result<ModelWrapper> {
    let Value::Object(object) = &mut model else { return Err("there is no model".into()) };
    // old files have no type
    let Some(Value::String(kind)) = object.remove("type") else {
        return Ok(serde_json::from_value(model)?);
    };
    Ok(match kind.as_str() {
        "BPE" => ModelWrapper::BPE(serde_json::from_value(model)?),
        "Unigram" => ModelWrapper::Unigram(serde_json::from_value(model)?),
        "WordPiece" => ModelWrapper::WordPiece(serde_json::from_value(model)?),
        "WordLevel" => ModelWrapper::WordLevel(serde_json::from_value(model)?),
        _ => return Err(format!("the type of the model is {kind:?}").into()),
    })
}

/// Checks every table. What is missing or of another type is left to `tokenizers`.
fn check(file: &Value) -> Result<(), Problem> {
    let ids = model_ids(&file["model"])?;
    let added = added_ids(&file["added_tokens"])?;
    components::check(file, &|id| ids.contains(id) || added.contains(id))
}

/// A set of ids below [`MAX_IDS`].
#[derive(Default)]
struct Ids(Vec<u64>);

impl Ids {
    /// Whether it was not in the set.
    fn insert(&mut self, id: usize) -> bool {
        let (word, bit) = (id / 64, 1 << (id % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn contains(&self, id: u64) -> bool {
        let word = usize::try_from(id / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word & (1 << (id % 64)) != 0)
    }
}

/// An id of a token.
pub(crate) fn check_id(key: &str, token: &str, id: u64) -> Result<usize, Problem> {
    match usize::try_from(id) {
        Ok(id) if id < MAX_IDS => Ok(id),
        _ => Err(Problem::new(key, format!("the id of {token:?} is {id}, expected less than {MAX_IDS}"))),
    }
}

/// The text of a token.
pub(crate) fn check_text(key: &str, token: &str) -> Result<(), Problem> {
    if token.len() <= MAX_TOKEN_BYTES {
        return Ok(());
    }
    let start: String = token.chars().take(20).collect();
    let problem =
        format!("a token has {} bytes, expected at most {MAX_TOKEN_BYTES}: {start:?}…", token.len());
    Err(Problem::new(key, problem))
}

/// Checks the model and returns the ids of its vocabulary.
fn model_ids(model: &Value) -> Result<Ids, Problem> {
    const KEY: &str = "model.vocab";
    let mut ids = Ids::default();
    let mut longest = 0;
    match &model["vocab"] {
        Value::Object(vocabulary) => {
            for (token, id) in vocabulary {
                check_text(KEY, token)?;
                longest = longest.max(token.len());
                let Some(id) = id.as_u64() else { continue };
                if !ids.insert(check_id(KEY, token, id)?) {
                    return Err(Problem::new(KEY, format!("the id {id} of {token:?} occurs twice")));
                }
            }
        }
        Value::Array(vocabulary) => {
            let mut bytes = 0;
            for (id, entry) in vocabulary.iter().enumerate() {
                let token = entry[0].as_str().unwrap_or_default();
                check_text(KEY, token)?;
                bytes += token.len();
                ids.insert(id);
            }
            if bytes > MAX_UNIGRAM_BYTES {
                let problem = format!("the tokens have {bytes} bytes, expected at most {MAX_UNIGRAM_BYTES}");
                return Err(Problem::new(KEY, problem));
            }
        }
        _ => {}
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let bytes = model[key].as_str().map_or(0, str::len);
        if bytes > MAX_AFFIX_BYTES {
            let text = format!("found {bytes} bytes, expected at most {MAX_AFFIX_BYTES}");
            return Err(Problem::new(format!("model.{key}"), text));
        }
    }
    check_merges(model, longest)?;
    match model["max_input_chars_per_word"].as_u64() {
        Some(characters) if characters > MAX_WORD_CHARACTERS => Err(Problem::new(
            "model.max_input_chars_per_word",
            format!("found {characters}, expected at most {MAX_WORD_CHARACTERS}"),
        )),
        _ => Ok(ids),
    }
}

/// Checks that a merge can be the text of a token: the second part has the prefix of continued words, which is removed, and the
/// result is not longer than the longest token. That parts and result are tokens is left to `tokenizers`, which names them.
fn check_merges(model: &Value, longest: usize) -> Result<(), Problem> {
    let Value::Array(merges) = &model["merges"] else { return Ok(()) };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for (index, merge) in merges.iter().enumerate() {
        let parts = match merge {
            Value::String(merge) => merge.split_once(' '),
            merge => merge[0].as_str().zip(merge[1].as_str()),
        };
        let Some((first, second)) = parts else { continue };
        let problem = |text| Err(Problem::new(format!("model.merges[{index}]"), text));
        match second.get(prefix.len()..) {
            Some(rest) if first.len() + rest.len() <= longest => {}
            Some(rest) => return problem(format!("there is no token {:?}", [first, rest].concat())),
            None => {
                return problem(format!(
                    "{second:?} does not begin with continuing_subword_prefix, which is {prefix:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Checks the added tokens and returns their ids.
fn added_ids(tokens: &Value) -> Result<Ids, Problem> {
    const KEY: &str = "added_tokens";
    let mut ids = Ids::default();
    for token in tokens.as_array().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or_default();
        check_text(KEY, text)?;
        match token["id"].as_u64() {
            Some(id) => ids.insert(check_id(KEY, text, id)?),
            None => return Err(Problem::new(KEY, format!("{text:?} has no id"))),
        };
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
