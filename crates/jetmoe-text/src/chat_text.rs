//! A rendered conversation, and its token ids.

use crate::control_tokens::ControlTokens;
use crate::{ChatMessage, ChatOptions, Error, Result, Tokenizer};

/// A conversation as the chat template renders it. It tells the template's special tokens from text of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatText {
    text: String,
    /// The text with the template's special tokens wrapped, if messages contain others.
    wrapped: Option<String>,
}

impl ChatText {
    /// The text, with special tokens as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, with special tokens as text.
    pub fn into_string(self) -> String {
        self.text
    }

    /// Without the characters at the end for which `is_removed` is true.
    #[must_use]
    pub fn trim_end_matches(&self, is_removed: fn(char) -> bool) -> Self {
        let trim = |text: &str| text.trim_end_matches(is_removed).to_owned();
        ChatText { text: trim(&self.text), wrapped: self.wrapped.as_deref().map(trim) }
    }
}

impl Tokenizer {
    /// Renders a conversation, as [`Tokenizer::render_chat`], to be encoded by [`Tokenizer::encode_chat_text`].
    ///
    /// # Errors
    /// As [`Tokenizer::render_chat`]. If a message contains the text of a special token, and
    /// [`ChatOptions::split_special_tokens`] is on: [`Error::SpecialTokenInMessage`] if the template reads it or changes the text,
    /// [`Error::Noncharacter`] if the conversation contains U+FDD0 or U+FDD1 as well.
    pub fn render_chat_text(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<ChatText> {
        // recursion over values is safe after the template's check of their depth
        let text = self.render_chat(messages, options)?;
        let control_tokens = self.control_tokens();
        let marked = options.split_special_tokens.then(|| control_tokens.mark(messages, options)).flatten();
        let Some(marked) = marked else { return Ok(ChatText { text, wrapped: None }) };
        if ControlTokens::has_reserved(&text) {
            return Err(Error::Noncharacter);
        }
        let rendered = self.render_chat(&marked.messages, &marked.options)?;
        let unmarked = ControlTokens::unmarked(&rendered);
        // a template that prints the time renders another text a second later
        if unmarked == text || unmarked == self.render_chat(messages, options)? {
            let wrapped = Some(control_tokens.wrap(&rendered));
            return Ok(ChatText { text: unmarked, wrapped });
        }
        match marked.found {
            Some(token) => Err(Error::SpecialTokenInMessage { token }),
            None => Ok(ChatText { text, wrapped: None }),
        }
    }

    /// Token ids of a rendered conversation. Nothing is added: the template has the special tokens.
    ///
    /// # Errors
    /// [`Error::Encode`] if the tokenizer cannot encode the text.
    pub fn encode_chat_text(&self, chat: &ChatText) -> Result<Vec<u32>> {
        match &chat.wrapped {
            None => self.encode(&chat.text, false),
            Some(wrapped) => self.encode_wrapped(wrapped, false),
        }
    }

    /// A rendered conversation followed by a text, whose special tokens are tokens.
    pub fn continue_chat_text(&self, chat: &ChatText, text: &str) -> ChatText {
        let wrapped =
            chat.wrapped.as_ref().map(|wrapped| wrapped.clone() + &self.control_tokens().wrap(text));
        ChatText { text: chat.text.clone() + text, wrapped }
    }

    /// As [`Tokenizer::encode`], with the text of special tokens as plain text, as transformers does with
    /// `split_special_tokens=True`.
    ///
    /// # Errors
    /// [`Error::Encode`] if the tokenizer cannot encode the text, [`Error::Noncharacter`] if it contains U+FDD0 or U+FDD1.
    pub fn encode_split(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        if ControlTokens::has_reserved(text) {
            return Err(Error::Noncharacter);
        }
        self.encode_wrapped(text, add_special_tokens)
    }
}
