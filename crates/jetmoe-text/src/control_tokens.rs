//! Encodes texts so that only a chat template's special tokens become control tokens, and the text of special tokens in messages
//! stays text, as transformers' `split_special_tokens` has it for a whole text.
//!
//! A template renders one text, which does not say what came from a message. So messages are *marked* before they are rendered:
//! a noncharacter of Unicode in each text of a special token divides it. What is undivided in the result is the template's, and is
//! *wrapped* in another noncharacter. Each special token has a twin with the wrapped text, which is found where special tokens
//! are not, so the text is encoded in one pass.

use std::collections::{BTreeSet, HashMap};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, AddedVocabulary, Encoding, Model, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::{ChatMessage, ChatOptions};

/// Divides the text of a special token in a message.
const MARK: char = '\u{fdd1}';
/// In front of a special token of a template, and behind it.
const WRAP: char = '\u{fdd0}';

/// Variables of a template that hold texts of others.
const VARIABLES: [&str; 2] = ["tools", "documents"];

/// The special tokens of a tokenizer and their twins.
#[derive(Debug, Clone)]
pub(crate) struct ControlTokens {
    /// Finds twins, and no special tokens.
    vocabulary: AddedVocabulary,
    /// Special tokens by the ids of their twins.
    ids: HashMap<u32, u32>,
    /// Texts of special tokens, sorted.
    special: Vec<String>,
    /// Finds each of them, also where they overlap.
    occurrences: AhoCorasick,
    /// Finds added tokens as the tokenizer does. The first patterns are the special tokens.
    splitter: AhoCorasick,
}

/// A conversation whose texts of special tokens are divided.
#[derive(Debug)]
pub(crate) struct MarkedConversation {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) options: ChatOptions,
    /// A special token that occurs in it. `None` if texts only end with the beginning of one.
    pub(crate) found: Option<String>,
}

impl ControlTokens {
    pub(crate) fn new(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Self> {
        let mut vocabulary = tokenizer.get_added_vocabulary().clone();
        vocabulary.set_encode_special_tokens(true);
        let mut tokens: Vec<(u32, AddedToken)> =
            vocabulary.get_added_tokens_decoder().iter().map(|(id, token)| (*id, token.clone())).collect();
        tokens.sort_by(|(_, first), (_, second)| first.content.cmp(&second.content));
        let (special, others): (Vec<_>, Vec<_>) =
            tokens.into_iter().partition(|(_, token)| vocabulary.is_special_token(&token.content));
        let twins = special.iter().map(|(_, token)| {
            let twin = AddedToken::from(wrapped(&token.content), false).normalized(false);
            twin.lstrip(token.lstrip).rstrip(token.rstrip)
        });
        vocabulary.add_tokens(twins, tokenizer.get_model(), tokenizer.get_normalizer())?;
        let twin_id = |token: &AddedToken| vocabulary.get_vocab().get(&wrapped(&token.content)).copied();
        let ids = special.iter().filter_map(|(id, token)| Some((twin_id(token)?, *id))).collect();
        let special: Vec<String> = special.into_iter().map(|(_, token)| token.content).collect();
        // those that match a normalized text are found after special tokens
        let others = others.iter().filter(|(_, token)| !token.normalized).map(|(_, token)| &token.content);
        let mut splitter = AhoCorasick::builder();
        let splitter = splitter.match_kind(MatchKind::LeftmostLongest).build(special.iter().chain(others))?;
        Ok(ControlTokens { vocabulary, ids, occurrences: AhoCorasick::new(&special)?, special, splitter })
    }

    /// Encodes a text in which wrapped special tokens are tokens, and others are text. Without what a post-processor adds.
    pub(crate) fn encode(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
    ) -> tokenizers::Result<Encoding> {
        // the steps of `tokenizers::TokenizerImpl::encode_fast`
        let mut pieces: PreTokenizedString =
            self.vocabulary.extract_and_normalize(tokenizer.get_normalizer(), text);
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| tokenizer.get_model().tokenize(piece.get()))?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
        let ids = encoding.get_ids().iter().map(|id| self.ids.get(id).copied().unwrap_or(*id));
        Ok(ids.map(|id| (id, String::new(), (0, 0), None, 0)).collect())
    }

    /// Whether a text contains characters that marks and wraps consist of.
    pub(crate) fn has_reserved(text: &str) -> bool {
        text.contains([MARK, WRAP])
    }

    /// Removes marks.
    pub(crate) fn unmarked(text: &str) -> String {
        text.replace(MARK, "")
    }

    /// Wraps the special tokens of a text, and removes its marks.
    pub(crate) fn wrap(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len() + 16);
        let mut end = 0;
        for found in self.splitter.find_iter(text) {
            result.push_str(&text[end..found.start()]);
            match self.special.get(found.pattern().as_usize()) {
                Some(token) => result.push_str(&wrapped(token)),
                None => result.push_str(&text[found.range()]),
            }
            end = found.end();
        }
        result.push_str(&text[end..]);
        Self::unmarked(&result)
    }

    /// Marks the texts of a conversation, and of the variables that hold texts of others. `None` if there is nothing to mark.
    pub(crate) fn mark(&self, messages: &[ChatMessage], options: &ChatOptions) -> Option<MarkedConversation> {
        let mut marker = Marker { tokens: self, found: None, is_marked: false };
        let messages = messages.iter().map(|message| {
            let mut marked = message.clone();
            marked.role = marker.mark_name(&message.role);
            marked.content = marker.mark(&message.content);
            marker.mark_values(&mut marked.extra);
            marked
        });
        let messages = messages.collect();
        let mut options = options.clone();
        for name in VARIABLES {
            if let Some(value) = options.variables.get_mut(name) {
                marker.mark_value(value);
            }
        }
        let Marker { found, is_marked, .. } = marker;
        is_marked.then_some(MarkedConversation { messages, options, found })
    }

    /// Whether a special token begins with the text and is longer.
    fn is_beginning(&self, text: &str) -> bool {
        let first = self.special.partition_point(|token| token.as_str() <= text);
        self.special.get(first).is_some_and(|token| token.starts_with(text))
    }
}

/// Marks texts, one after the other.
struct Marker<'a> {
    tokens: &'a ControlTokens,
    found: Option<String>,
    is_marked: bool,
}

impl Marker<'_> {
    fn mark(&mut self, text: &str) -> String {
        // behind the first character of each special token, and behind the beginning of one at the end
        let mut places = BTreeSet::new();
        for found in self.tokens.occurrences.find_overlapping_iter(text) {
            let token = &text[found.range()];
            places.insert(found.start() + token.chars().next().map_or(0, char::len_utf8));
            self.found.get_or_insert_with(|| token.to_owned());
        }
        let longest = self.tokens.special.iter().map(String::len).max().unwrap_or(0);
        let ends = text.char_indices().rev().take_while(|(start, _)| text.len() - start < longest);
        if ends.into_iter().any(|(start, _)| self.tokens.is_beginning(&text[start..])) {
            places.insert(text.len());
        }
        self.is_marked |= !places.is_empty();
        let mut marked = String::with_capacity(text.len() + places.len() * MARK.len_utf8());
        let mut end = 0;
        for place in places {
            marked.push_str(&text[end..place]);
            marked.push(MARK);
            end = place;
        }
        marked + &text[end..]
    }

    /// Marks a key or a role, if it contains a whole special token: a template compares others with names that it knows.
    fn mark_name(&mut self, name: &str) -> String {
        if self.tokens.occurrences.is_match(name) { self.mark(name) } else { name.to_owned() }
    }

    fn mark_values(&mut self, object: &mut Map<String, Value>) {
        let entries = std::mem::take(object).into_iter().map(|(key, mut value)| {
            self.mark_value(&mut value);
            (self.mark_name(&key), value)
        });
        *object = entries.collect();
    }

    /// Marks every text in a value, and keys.
    fn mark_value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.mark(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.mark_value(value)),
            Value::Object(object) => self.mark_values(object),
            _ => {}
        }
    }
}

fn wrapped(token: &str) -> String {
    format!("{WRAP}{token}{WRAP}")
}
