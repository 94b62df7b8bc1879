//! A checkpoint's tokenizer: `tokenizer.json`, with the chat template that comes with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{catch_panics, names, read_json_if_exists};
use serde_json::{Map, Value};
use tokenizers::{Encoding, PostProcessor, TruncationDirection, TruncationParams, truncate_encodings};

use crate::chat_templates::ChatTemplates;
use crate::control_tokens::ControlTokens;
use crate::special_tokens::SpecialTokens;
use crate::tokenizer_tables;
use crate::{ChatMessage, ChatOptions, ChatTemplate, Error, Result};

/// A checkpoint's tokenizer with its chat templates.
///
/// `tokenizer.json` decides how a text is split, whatever class `tokenizer_config.json` names.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    special_tokens: SpecialTokens,
    chat_templates: ChatTemplates,
    control_tokens: ControlTokens,
    /// From which end [`Tokenizer::encode_input`] takes tokens.
    truncation: TruncationDirection,
}

/// Token ids of an input, perhaps truncated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedInput {
    /// The ids, including special tokens.
    pub ids: Vec<u32>,
    /// Number of ids without truncation, including special tokens.
    pub untruncated: usize,
}

impl EncodedInput {
    /// Whether tokens were removed.
    pub fn is_truncated(&self) -> bool {
        self.ids.len() < self.untruncated
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, if present, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the
    /// files of chat templates. `None` if the folder has no tokenizer.
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
        let mut inner = tokenizer_tables::read(&path)?;
        let config: Option<Map<String, Value>> = read_json_if_exists(&folder.join(names::TOKENIZER_CONFIG))?;
        let config = config.unwrap_or_default();
        let special_tokens = SpecialTokens::open(folder, &config)?;
        catch(|| special_tokens.add_to(&mut inner)).map_err(failed(&path))?;
        let control_tokens = catch(|| ControlTokens::new(&inner)).map_err(failed(&path))?;
        let chat_templates = ChatTemplates::open(folder, &config, &special_tokens.named)?;
        let truncation = match config.get("truncation_side").and_then(Value::as_str) {
            Some("left") => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        };
        Ok(Some(Tokenizer { path, inner, special_tokens, chat_templates, control_tokens, truncation }))
    }

    /// Token ids of a text. `add_special_tokens` prepends the begin-of-sequence token, as in training.
    ///
    /// # Errors
    /// [`Error::Encode`] if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        catch(|| self.inner.encode_fast(text, add_special_tokens))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|source| Error::Encode { path: self.path.clone(), source })
    }

    /// Token ids of a text in which wrapped special tokens are tokens, and others are text.
    pub(crate) fn encode_wrapped(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encode = || {
            let encoding = self.control_tokens.encode(&self.inner, text)?;
            self.inner.post_process(encoding, None, add_special_tokens)
        };
        catch(encode)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|source| Error::Encode { path: self.path.clone(), source })
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn control_tokens(&self) -> &ControlTokens {
        &self.control_tokens
    }

    /// Token ids of one text, or of a pair of texts that are one input, with the special tokens that the tokenizer's
    /// post-processor adds. As in transformers an empty second text is none.
    ///
    /// With `max_tokens` at most so many: as in transformers (`truncation=True`) tokens of the texts are removed, of the longer
    /// text first, and the special tokens stay. They are removed at the end, or at the beginning if `tokenizer_config.json` has
    /// the `truncation_side` `left`.
    ///
    /// # Errors
    /// [`Error::Encode`] if the tokenizer cannot encode the texts.
    pub fn encode_input(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_tokens: Option<usize>,
    ) -> Result<EncodedInput> {
        self.encode_texts(text, text_pair, max_tokens, |text| self.inner.encode_fast(text, false))
    }

    /// As [`Tokenizer::encode_input`], with the text of special tokens as plain text, as [`Tokenizer::encode_split`].
    ///
    /// # Errors
    /// As [`Tokenizer::encode_input`], and [`Error::Noncharacter`] if a text contains U+FDD0 or U+FDD1.
    pub fn encode_input_split(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_tokens: Option<usize>,
    ) -> Result<EncodedInput> {
        if [Some(text), text_pair].into_iter().flatten().any(ControlTokens::has_reserved) {
            return Err(Error::Noncharacter);
        }
        self.encode_texts(text, text_pair, max_tokens, |text| self.control_tokens.encode(&self.inner, text))
    }

    fn encode_texts(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_tokens: Option<usize>,
        encode: impl Fn(&str) -> tokenizers::Result<Encoding>,
    ) -> Result<EncodedInput> {
        catch(|| self.join_texts(text, text_pair, max_tokens, encode))
            .map_err(|source| Error::Encode { path: self.path.clone(), source })
    }

    fn join_texts(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_tokens: Option<usize>,
        encode: impl Fn(&str) -> tokenizers::Result<Encoding>,
    ) -> tokenizers::Result<EncodedInput> {
        let first = encode(text)?;
        let second = text_pair.filter(|text| !text.is_empty());
        let second = second.map(encode).transpose()?;
        let content = first.len() + second.as_ref().map_or(0, |second| second.len());
        let special = self.inner.get_post_processor().map_or(0, |it| it.added_tokens(second.is_some()));
        let (first, second) = match max_tokens {
            None => (first, second),
            Some(max_tokens) => {
                let max_length = max_tokens.saturating_sub(special);
                let parameters = TruncationParams {
                    max_length,
                    direction: self.truncation,
                    ..TruncationParams::default()
                };
                truncate_encodings(first, second, &parameters)?
            }
        };
        let encoding = self.inner.post_process(first, second, true)?;
        let mut ids = encoding.get_ids().to_vec();
        // fewer than there are special tokens
        ids.truncate(max_tokens.unwrap_or(usize::MAX));
        Ok(EncodedInput { ids, untruncated: content + special })
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot decode the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        catch(|| self.inner.decode(ids, true)).map_err(failed(&self.path))
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

    /// Special tokens by their names, such as `eos_token`.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special_tokens.named
    }

    /// Text of a token id if it is a special token, which [`Tokenizer::decode`] leaves out.
    pub fn special_token(&self, id: u32) -> Option<String> {
        self.token(id).filter(|token| self.inner.get_added_vocabulary().is_special_token(token))
    }

    /// The chat template that is taken without a name, if the checkpoint has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_templates.default_template()
    }

    /// Whether one of the chat templates [reads](ChatTemplate::reads) a name.
    pub fn chat_templates_read(&self, name: &str) -> bool {
        self.chat_templates.reads(name)
    }

    /// Names of the chat templates, sorted; a single template is called `default`.
    pub fn chat_template_names(&self) -> impl Iterator<Item = &str> {
        self.chat_templates.names()
    }

    /// Compiles every chat template, to find syntax errors. [`Tokenizer::open`] only reads them.
    ///
    /// # Errors
    /// [`Error::ChatTemplateFile`].
    pub fn check_chat_templates(&self) -> Result<()> {
        self.chat_templates.check()
    }

    /// Renders a conversation with the checkpoint's chat template. The result contains the special tokens as text, so encode it
    /// without adding any.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], [`Error::ChatTemplateName`] if there is none of that name or no `default`, and the errors of
    /// [`ChatTemplate::render_with`].
    pub fn render_chat(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        self.chat_templates.render(messages, options)
    }
}

/// What `tokenizers` reports, or a panic in it. It changes nothing but caches, which hold complete entries only.
pub(crate) fn catch<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_panics(work, tokenizers::Error::from)
}

pub(crate) fn failed(path: &Path) -> impl FnOnce(tokenizers::Error) -> Error {
    |source| Error::Tokenizer { path: path.to_owned(), source }
}
