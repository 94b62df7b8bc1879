//! The text of a continuation while its tokens are generated.

use std::ops::Deref;

use crate::{Detokenizer, Result, StopMatcher, Tokenizer};

/// Text of a continuation while its tokens are generated.
///
/// Pieces never split a character. Concatenated, they equal what decoding prompt and continuation at once adds to the
/// prompt's text; bytes that are not valid UTF-8 become U+FFFD once no other byte can complete them. Text that may be
/// the start of a stop string is held back until that is decided. Output ends before the stop string that ends first;
/// of several that end at the same character the longest counts. A stop string is compared with the text including special
/// tokens, so it may be one or contain one.
///
/// `T` is a reference to the tokenizer: `&Tokenizer`, or `Arc<Tokenizer>` for a value without a lifetime.
///
/// ```no_run
/// # fn example(tokenizer: &jetmoe_text::Tokenizer, tokens: &[u32]) -> jetmoe_text::Result<()> {
/// let prompt = tokenizer.encode("In the beginning", true)?;
/// let mut stream = jetmoe_text::TextStream::new(tokenizer, &prompt, &["\n\n".to_owned()])?;
/// for token in tokens {
///     print!("{}", stream.push(*token)?);
///     if stream.is_stopped() {
///         break;
///     }
/// }
/// println!("{}", stream.finish()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TextStream<T> {
    detokenizer: Detokenizer<T>,
    stop: StopMatcher,
}

impl<T: Deref<Target = Tokenizer>> TextStream<T> {
    /// Continues a prompt. The text of the first new token depends on the prompt's ids: a space that begins a text is
    /// dropped, one that continues it is kept.
    ///
    /// # Errors
    /// [`Error::EmptyStopString`](crate::Error::EmptyStopString), or a prompt that cannot be decoded.
    pub fn new(tokenizer: T, prompt: &[u32], stop: &[String]) -> Result<Self> {
        Ok(TextStream { detokenizer: Detokenizer::new(tokenizer, prompt)?, stop: StopMatcher::new(stop)? })
    }

    /// Adds a token and returns the text that can no longer change, often none.
    ///
    /// # Errors
    /// A token that cannot be decoded.
    pub fn push(&mut self, token_id: u32) -> Result<String> {
        if self.is_stopped() {
            return Ok(String::new());
        }
        let piece = self.detokenizer.push(token_id)?;
        let text = self.stop.push(&piece);
        Ok(text + &self.push_hidden(token_id))
    }

    /// Adds the token that ends the sequence. It has no text, but it may complete a stop string. Returns as
    /// [`TextStream::push`].
    pub fn push_end(&mut self, token_id: u32) -> String {
        self.push_hidden(token_id)
    }

    fn push_hidden(&mut self, token_id: u32) -> String {
        if !self.stop.has_stop_strings() {
            return String::new();
        }
        let token = self.detokenizer.tokenizer().special_token(token_id);
        token.map_or_else(String::new, |token| self.stop.push_special(&token))
    }

    /// Returns the pending text, after the last token. It may still complete a stop string.
    ///
    /// # Errors
    /// Tokens that cannot be decoded.
    pub fn finish(&mut self) -> Result<String> {
        if self.is_stopped() {
            return Ok(String::new());
        }
        let piece = self.detokenizer.finish()?;
        Ok(self.stop.push(&piece) + &self.stop.finish())
    }

    /// Whether a stop string was found; no text is returned after it.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }
}

#[cfg(test)]
mod tests;
