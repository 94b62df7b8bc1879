//! The bytes that each token of a vocabulary adds to a text, for programs that decide which tokens may follow.

use tokenizers::{Decoder as _, DecoderWrapper};

use crate::tokenizer::{catch, failed};
use crate::{Result, Tokenizer};

impl Tokenizer {
    /// The bytes that each token adds in the middle of a text, by its id: a leading space included, and bytes that are no whole
    /// character as they are. Empty for special tokens, which have no text, and for ids without a token.
    ///
    /// Byte-level and byte-fallback vocabularies have tokens of single bytes; a token of another vocabulary is what the decoder
    /// adds behind a word.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the tokenizer cannot decode a token.
    pub fn token_bytes(&self) -> Result<Vec<Vec<u8>>> {
        catch(|| {
            let decoder = self.inner().get_decoder();
            let bytes = TokenBytes {
                tokenizer: self.inner(),
                has_byte_level: decoder
                    .is_some_and(|it| has(it, &|it| matches!(it, DecoderWrapper::ByteLevel(_)))),
                has_byte_fallback: decoder
                    .is_some_and(|it| has(it, &|it| matches!(it, DecoderWrapper::ByteFallback(_)))),
                word: None,
            };
            bytes.all()
        })
        .map_err(failed(self.path()))
    }
}

/// Whether a decoder, or one in its sequence, has a property.
fn has(decoder: &DecoderWrapper, property: &dyn Fn(&DecoderWrapper) -> bool) -> bool {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            sequence.get_decoders().iter().any(|inner| has(inner, property))
        }
        decoder => property(decoder),
    }
}

/// What tells the bytes of tokens.
struct TokenBytes<'a> {
    tokenizer: &'a tokenizers::Tokenizer,
    has_byte_level: bool,
    has_byte_fallback: bool,
    /// A token with its text, behind which the decoder adds others.
    word: Option<(String, String)>,
}

impl TokenBytes<'_> {
    fn all(mut self) -> tokenizers::Result<Vec<Vec<u8>>> {
        let vocabulary = self.tokenizer.get_vocab(true);
        let mut all = vec![Vec::new(); vocabulary.values().max().map_or(0, |last| *last as usize + 1)];
        self.word = self.find_word(all.len() as u32)?;
        let added = self.tokenizer.get_added_vocabulary();
        for (token, id) in vocabulary {
            all[id as usize] = if added.is_special_token(&token) {
                Vec::new()
            } else if added.get_vocab().contains_key(&token) {
                // decoders leave it as it is
                token.into_bytes()
            } else {
                self.of(token)?
            };
        }
        Ok(all)
    }

    fn of(&self, token: String) -> tokenizers::Result<Vec<u8>> {
        if self.has_byte_fallback
            && let Some(byte) = fallback_byte(&token)
        {
            return Ok(vec![byte]);
        }
        if self.has_byte_level
            && let Some(bytes) = token.chars().map(byte_of).collect()
        {
            return Ok(bytes);
        }
        let Some((word, text)) = &self.word else { return Ok(token.into_bytes()) };
        let both = self.decode(vec![word.clone(), token])?;
        Ok(both.strip_prefix(text.as_str()).unwrap_or_default().as_bytes().to_vec())
    }

    /// The first token of letters that is a text by itself.
    fn find_word(&self, ids: u32) -> tokenizers::Result<Option<(String, String)>> {
        for id in 0..ids {
            let Some(token) = self.tokenizer.id_to_token(id) else { continue };
            if !token.is_empty() && token.chars().all(|letter| letter.is_ascii_alphabetic()) {
                let text = self.decode(vec![token.clone()])?;
                return Ok(Some((token, text)));
            }
        }
        Ok(None)
    }

    fn decode(&self, tokens: Vec<String>) -> tokenizers::Result<String> {
        match self.tokenizer.get_decoder() {
            Some(decoder) => decoder.decode(tokens),
            None => Ok(tokens.join(" ")),
        }
    }
}

/// The byte of a token `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The byte for which a character stands in a byte-level vocabulary: printable characters of Latin-1 for themselves, those from
/// U+0100 on for the other bytes in their order (`bytes_to_unicode` of GPT-2's `encoder.py`).
fn byte_of(character: char) -> Option<u8> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(u32::from(character)) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => {
            let index = (u32::from(character) as usize).checked_sub(0x100)?;
            (0..=u8::MAX).filter(|byte| !is_printable(*byte)).nth(index)
        }
    }
}

#[cfg(test)]
mod tests;
