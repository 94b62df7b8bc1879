//! Incremental decoding: token ids in, text out, one token at a time.

use std::collections::BTreeSet;
use std::ops::Deref;

use crate::{Result, Tokenizer};

/// What decoders write for bytes that are not valid UTF-8.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Decodes token ids one at a time. The concatenated pieces equal the text of all ids decoded at once.
///
/// Each step decodes a short window again: a *context* whose text was already returned, so that the decoder does not
/// strip the leading space of the next token, and the *pending* tokens. Text is pending while it may still change: after
/// a replacement character, because the missing bytes may follow, and during a run of byte tokens, because the
/// byte-fallback decoder turns a run into text if all of it is valid UTF-8 and into replacement characters if not.
///
/// `T` is a reference to the tokenizer: `&Tokenizer`, or `Arc<Tokenizer>` for a value without a lifetime.
#[derive(Debug)]
pub struct Detokenizer<T> {
    tokenizer: T,
    byte_tokens: BTreeSet<u32>,
    /// The context, followed by the pending tokens.
    window: Vec<u32>,
    context_length: usize,
    context_text: String,
    in_byte_run: bool,
}

impl<T: Deref<Target = Tokenizer>> Detokenizer<T> {
    /// Continues a prompt, whose own text is not returned again.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the prompt cannot be decoded.
    pub fn new(tokenizer: T, prompt: &[u32]) -> Result<Self> {
        let byte_tokens: BTreeSet<u32> =
            (0..=u8::MAX).filter_map(|byte| tokenizer.token_id(&format!("<0x{byte:02X}>"))).collect();
        // start at the last token that is text by itself: earlier tokens cannot change the text that follows
        let mut start = prompt.len();
        while start > 0 {
            start -= 1;
            let id = prompt[start];
            if !byte_tokens.contains(&id) && !tokenizer.decode(&[id])?.is_empty() {
                break;
            }
        }
        let window = prompt[start..].to_vec();
        let context_text = tokenizer.decode(&window)?;
        let in_byte_run = window.iter().any(|id| byte_tokens.contains(id));
        Ok(Detokenizer {
            tokenizer,
            byte_tokens,
            context_length: window.len(),
            window,
            context_text,
            in_byte_run,
        })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Adds a token and returns the text that can no longer change, often none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the token cannot be decoded.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.window.push(id);
        if self.byte_tokens.contains(&id) {
            self.in_byte_run = true;
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.window)?;
        if self.in_byte_run {
            // a special token has no text and does not end the run of bytes
            if text == self.tokenizer.decode(&self.window[..self.window.len() - 1])? {
                return Ok(String::new());
            }
            self.in_byte_run = false;
        }
        if text.ends_with(REPLACEMENT) {
            return Ok(String::new());
        }
        let piece = text[common_length(&self.context_text, &text)..].to_owned();
        if !piece.is_empty() {
            self.window.drain(..self.context_length);
            self.context_length = self.window.len();
            self.context_text = self.tokenizer.decode(&self.window)?;
        }
        Ok(piece)
    }

    /// Returns the text of the pending tokens, after the last token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if they cannot be decoded.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        let piece = text[common_length(&self.context_text, &text)..].to_owned();
        self.context_length = self.window.len();
        self.context_text = text;
        Ok(piece)
    }
}

/// Length in bytes of the common prefix of two texts, cut to whole characters. It is the whole context unless the prompt
/// ended inside a character or inside a run of byte tokens.
fn common_length(context: &str, text: &str) -> usize {
    let same = context.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    text.floor_char_boundary(same)
}

#[cfg(test)]
mod tests;
