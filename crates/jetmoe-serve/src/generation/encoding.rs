//! Prompts as token ids, on threads where encoding may take its time.

use jetmoe_rt::{ChatMessage, ChatOptions, EncodedPrompt, Error, Generator, Model};

use crate::blocking::blocking;
use crate::error::ApiResult;

/// Token ids of texts in which control tokens are text. With `special` the tokenizer adds what begins a text.
///
/// # Errors
/// Status 400 or 413 for a text that is empty, too long or cannot be encoded, with `param`.
pub(crate) async fn encode_text(
    model: &Model,
    texts: Vec<String>,
    special: bool,
    param: &'static str,
) -> ApiResult<Vec<Vec<u32>>> {
    let model = model.clone();
    encoded(move || {
        let tokenizer = model.tokenizer().ok_or(Error::NoTokenizer)?;
        let limit = model.max_text_bytes();
        let positions = model.config().max_position_embeddings;
        let encode = |(index, text): (usize, &String)| {
            let bytes = text.len();
            if bytes > limit {
                return Err(Error::TextTooLong { index, bytes, limit, positions });
            }
            Ok(tokenizer.encode_split(text, special)?)
        };
        texts.iter().enumerate().map(encode).collect()
    })
    .await
    .map_err(|error| error.or_param(param))
}

/// A conversation as the template of the checkpoint renders it, and its token ids. Control tokens in messages are text.
///
/// # Errors
/// Status 400 or 413 for a conversation that the template refuses, or that is too long; 400 for a model without a template.
pub(crate) async fn encode_chat(
    generator: &Generator,
    messages: Vec<ChatMessage>,
    options: ChatOptions,
) -> ApiResult<EncodedPrompt> {
    let generator = generator.clone();
    let prompt = encoded(move || generator.encode_with(messages, &options));
    prompt.await.map_err(|error| error.or_param("messages"))
}

async fn encoded<T: Send + 'static>(
    work: impl FnOnce() -> jetmoe_rt::Result<T> + Send + 'static,
) -> ApiResult<T> {
    Ok(blocking("a prompt could not be encoded", work).await??)
}
