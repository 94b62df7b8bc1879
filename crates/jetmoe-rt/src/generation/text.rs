//! Generation of text: prompts and conversations in, streamed text out.

use std::ops::ControlFlow;

use jetmoe_text::{ChatMessage, TextStream, Tokenizer};

use super::tokens::{FinishReason, GenerationStatistics, StepControl, TokenGenerator};
use super::{GenerationOptions, PrefixCache};
use crate::{Error, Model, Result};

/// A prompt. Texts, conversations and token ids convert into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// A text, encoded with special tokens.
    Text(&'a str),
    /// A conversation, rendered by the checkpoint's chat template up to where the answer begins. It is encoded without
    /// adding special tokens, because the template contains them.
    Chat(&'a [ChatMessage]),
    /// Token ids, unchanged.
    Tokens(&'a [u32]),
}

macro_rules! prompt_from {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl<'a> From<$source> for Prompt<'a> {
            fn from(prompt: $source) -> Self {
                Prompt::$variant(prompt)
            }
        }
    )*};
}

prompt_from!(
    &'a str => Text,
    &'a &'a str => Text,
    &'a String => Text,
    &'a [ChatMessage] => Chat,
    &'a Vec<ChatMessage> => Chat,
    &'a [u32] => Tokens,
    &'a Vec<u32> => Tokens,
);

/// The continuation of one prompt as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedText {
    /// The text after the prompt, with its leading space if there is one; without end-of-sequence token, stop string and
    /// special tokens.
    pub text: String,
    /// Every generated token, including the end-of-sequence token and the tokens of a stop string.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Number of tokens of the prompt, including special tokens.
    pub prompt_tokens: usize,
    /// Work saved by the prefix cache and by speculation.
    pub statistics: GenerationStatistics,
}

/// Continues texts and conversations.
///
/// ```no_run
/// use jetmoe_rt::{ChatMessage, GenerationOptions, LoadOptions, Model, TextGenerator};
/// use std::ops::ControlFlow;
///
/// let model = Model::load("path/to/artifact", &LoadOptions::default())?;
/// let generator = TextGenerator::new(&model)?;
/// let options = GenerationOptions::for_model(&model);
///
/// let question = [ChatMessage { role: "user".into(), content: "Who made the heaven?".into() }];
/// let answer = generator.stream(&question[..], &options, |piece| {
///     print!("{piece}");
///     ControlFlow::Continue(())
/// })?;
/// println!("\n{} tokens, ended by {}", answer.token_ids.len(), answer.finish_reason);
/// # Ok::<(), jetmoe_rt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TextGenerator {
    tokens: TokenGenerator,
}

impl TextGenerator {
    /// A generator for a model; the weights are shared.
    ///
    /// # Errors
    /// [`Error::WrongTask`] for a model that does not predict tokens, [`Error::NoTokenizer`] for one without a
    /// tokenizer.
    pub fn new(model: &Model) -> Result<Self> {
        let tokens = TokenGenerator::new(model)?;
        model.require_tokenizer()?;
        Ok(TextGenerator { tokens })
    }

    /// The generator for token ids with the same model.
    pub fn tokens(&self) -> &TokenGenerator {
        &self.tokens
    }

    /// Continues one prompt.
    ///
    /// # Errors
    /// * [`Error::Option`]: an invalid value in `options`.
    /// * [`Error::EmptyPrompt`]: no text, no message or no token. A text of spaces is not empty.
    /// * [`Error::TooLong`], [`Error::TokenOutOfRange`]: a prompt that is too long or has an invalid id.
    /// * [`Error::Text`]: the tokenizer or the chat template failed, or there is no chat template.
    /// * [`Error::Backend`]: the backend failed. [`Error::Logits`]: the logits are NaN.
    pub fn generate<'p>(
        &self,
        prompt: impl Into<Prompt<'p>>,
        options: &GenerationOptions,
    ) -> Result<GeneratedText> {
        self.stream(prompt, options, |_| ControlFlow::Continue(()))
    }

    /// Continues one prompt and calls `on_text` with every piece of text as soon as it can no longer change. Pieces are
    /// never empty and never split a character; concatenated they are the resulting text. [`ControlFlow::Break`] ends
    /// the generation.
    ///
    /// # Errors
    /// As [`TextGenerator::generate`].
    pub fn stream<'p>(
        &self,
        prompt: impl Into<Prompt<'p>>,
        options: &GenerationOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GeneratedText> {
        let prompt_ids = self.encode(prompt)?;
        let mut texts = self.run(&[prompt_ids], options, None, &mut on_text)?;
        // one prompt has one continuation
        texts.pop().ok_or(Error::EmptyPrompt { index: 0 })
    }

    /// As [`TextGenerator::stream`], and computes only the tokens that are not in `cache`: for conversations, where each
    /// prompt begins with all previous turns. See [`TokenGenerator::generate_cached`] for the content of `cache`
    /// afterwards.
    ///
    /// # Errors
    /// As [`TextGenerator::generate`].
    pub fn stream_cached<'p>(
        &self,
        prompt: impl Into<Prompt<'p>>,
        options: &GenerationOptions,
        cache: &mut PrefixCache,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GeneratedText> {
        let prompt_ids = self.encode(prompt)?;
        let mut texts = self.run(&[prompt_ids], options, Some(cache), &mut on_text)?;
        texts.pop().ok_or(Error::EmptyPrompt { index: 0 })
    }

    /// Continues several prompts in one batch; results are in the order of the prompts. With
    /// [`Sampling::Multinomial`](super::Sampling::Multinomial) a repeated prompt gets several continuations.
    ///
    /// # Errors
    /// As [`TextGenerator::generate`].
    pub fn generate_batch<'p, P: Into<Prompt<'p>>>(
        &self,
        prompts: impl IntoIterator<Item = P>,
        options: &GenerationOptions,
    ) -> Result<Vec<GeneratedText>> {
        let prompt_ids = prompts
            .into_iter()
            .enumerate()
            .map(|(index, prompt)| self.encode_at(index, prompt.into()))
            .collect::<Result<Vec<_>>>()?;
        self.run(&prompt_ids, options, None, &mut |_| ControlFlow::Continue(()))
    }

    /// Token ids of a prompt.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] or [`Error::Text`], as [`TextGenerator::generate`].
    pub fn encode<'p>(&self, prompt: impl Into<Prompt<'p>>) -> Result<Vec<u32>> {
        self.encode_at(0, prompt.into())
    }

    fn encode_at(&self, index: usize, prompt: Prompt<'_>) -> Result<Vec<u32>> {
        let ids = match prompt {
            // the begin-of-sequence token alone would be a valid prompt, but an empty text is a mistake
            Prompt::Text("") | Prompt::Chat([]) => return Err(Error::EmptyPrompt { index }),
            Prompt::Text(text) => self.tokenizer()?.encode(text, true)?,
            Prompt::Chat(messages) => self.encode_chat(messages)?,
            Prompt::Tokens(ids) => ids.to_vec(),
        };
        if ids.is_empty() { Err(Error::EmptyPrompt { index }) } else { Ok(ids) }
    }

    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        let template = tokenizer.chat_template().ok_or(jetmoe_text::Error::NoChatTemplate)?;
        let rendered = template.render(messages, true)?;
        Ok(tokenizer.encode(&rendered, false)?)
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokens.model().require_tokenizer()
    }

    fn run(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerationOptions,
        cache: Option<&mut PrefixCache>,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Vec<GeneratedText>> {
        options.validate()?;
        let tokenizer = self.tokenizer()?;
        let mut streams = prompts
            .iter()
            .map(|prompt| Ok((TextStream::new(tokenizer, prompt, &options.stop)?, String::new())))
            .collect::<Result<Vec<_>>>()?;
        let generated = self.tokens.run(prompts, options, cache, &mut |event| {
            let (stream, text) = &mut streams[event.sequence];
            let mut piece = match event.finish_reason {
                Some(FinishReason::Eos) => String::new(),
                _ => stream.push(event.token_id)?,
            };
            if event.finish_reason.is_some() {
                piece += &stream.finish()?;
            }
            text.push_str(&piece);
            let is_cancelled = !piece.is_empty() && on_text(&piece).is_break();
            Ok(match (stream.is_stopped(), is_cancelled) {
                (true, _) => StepControl::Stop,
                (false, true) => StepControl::Cancel,
                (false, false) => StepControl::Continue,
            })
        })?;
        let texts = streams.into_iter().map(|(_, text)| text);
        Ok(generated
            .into_iter()
            .zip(texts)
            .zip(prompts)
            .map(|((generated, text), prompt)| GeneratedText {
                text,
                token_ids: generated.token_ids,
                finish_reason: generated.finish_reason,
                prompt_tokens: prompt.len(),
                statistics: generated.statistics,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
