//! Token ids of users' texts.

use jetmoe_rt::{Error, Model};

/// Token ids of the text with an index, in which control tokens are text, with the special tokens that the tokenizer adds.
///
/// # Errors
/// [`Error::EmptyPrompt`], [`Error::TextTooLong`], [`Error::NoTokenizer`], or [`Error::Text`] for a text that cannot be encoded.
pub(crate) fn encode_text(model: &Model, index: usize, text: &str) -> Result<Vec<u32>, Error> {
    if text.is_empty() {
        return Err(Error::EmptyPrompt { index });
    }
    let (bytes, limit) = (text.len(), model.max_text_bytes());
    if bytes > limit {
        let positions = model.config().max_position_embeddings;
        return Err(Error::TextTooLong { index, bytes, limit, positions });
    }
    let tokenizer = model.tokenizer().ok_or(Error::NoTokenizer)?;
    Ok(tokenizer.encode_split(text, true)?)
}
