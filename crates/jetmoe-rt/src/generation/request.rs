//! Prompts, and the request that holds them.

use std::time::Instant;

use jetmoe_backend::CancellationToken;
use jetmoe_text::{ChatMessage, ChatOptions};

use super::{GenerationOptions, PrefixCache};

/// A prompt. Texts, conversations and token ids convert into it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prompt {
    /// A text, encoded with special tokens.
    Text(String),
    /// A conversation, rendered by the checkpoint's chat template up to where the answer begins, unless
    /// [`Request::with_chat_options`] says otherwise. It is encoded without adding special tokens, because the template contains
    /// them.
    Chat(Vec<ChatMessage>),
    /// Token ids, unchanged.
    Tokens(Vec<u32>),
}

/// A prompt as a model reads it. It converts into a [`Prompt`] of its token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedPrompt {
    /// The text: of a conversation, as the chat template renders it. `None` if the prompt is token ids.
    pub text: Option<String>,
    /// The token ids, including special tokens.
    pub token_ids: Vec<u32>,
}

/// Conversions into an enum, one line for each type.
macro_rules! conversions {
    ($target:ident: $($(const $size:ident,)? $source:ty => $variant:ident($convert:expr),)*) => {$(
        impl$(<const $size: usize>)? From<$source> for $target {
            fn from(source: $source) -> Self {
                $target::$variant($convert(source))
            }
        }
    )*};
}

/// Conversions of texts and token ids into an enum with the variants `Text` and `Tokens`.
macro_rules! conversions_of_texts_and_tokens {
    ($target:ident) => {
        conversions! { $target:
            String => Text(std::convert::identity),
            &String => Text(String::clone),
            &str => Text(str::to_owned),
            &&str => Text(|text: &&str| (*text).to_owned()),
            Vec<u32> => Tokens(std::convert::identity),
            &Vec<u32> => Tokens(Vec::clone),
            &[u32] => Tokens(<[u32]>::to_vec),
            &&[u32] => Tokens(|ids: &&[u32]| ids.to_vec()),
            const N, [u32; N] => Tokens(Vec::from),
            const N, &[u32; N] => Tokens(Vec::from),
        }
    };
}
pub(super) use {conversions, conversions_of_texts_and_tokens};

conversions_of_texts_and_tokens!(Prompt);
conversions! { Prompt:
    EncodedPrompt => Tokens(|encoded: EncodedPrompt| encoded.token_ids),
    &EncodedPrompt => Tokens(|encoded: &EncodedPrompt| encoded.token_ids.clone()),
    Vec<ChatMessage> => Chat(std::convert::identity),
    &Vec<ChatMessage> => Chat(Vec::clone),
    &[ChatMessage] => Chat(<[ChatMessage]>::to_vec),
    const N, [ChatMessage; N] => Chat(Vec::from),
    const N, &[ChatMessage; N] => Chat(Vec::from),
}

/// What to generate: one or several prompts, with the options that hold for all of them.
///
/// ```
/// use jetmoe_rt::{ChatMessage, GenerationOptions, Request};
///
/// let text = Request::new("In the beginning");
/// let chat = Request::new([ChatMessage::user("Who made the heaven?")]);
/// let token_ids = Request::new(vec![1, 503, 261]);
/// let several = Request::batch(["In the beginning", "Blessed are"])
///     .with_options(GenerationOptions::default().with_max_new_tokens(40));
/// # let _ = (text, chat, token_ids, several);
/// ```
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) prompts: Vec<Prompt>,
    pub(super) options: Option<GenerationOptions>,
    pub(super) chat_options: ChatOptions,
    pub(super) split_special_tokens: bool,
    pub(super) prefix_cache: Option<PrefixCache>,
    pub(super) cancellation: CancellationToken,
    pub(super) deadline: Option<Instant>,
}

impl Request {
    /// A request with one prompt.
    pub fn new(prompt: impl Into<Prompt>) -> Self {
        Self::batch([prompt])
    }

    /// A request with any number of prompts, which share every step. Results are in the order of the prompts. With
    /// [`Sampling::Multinomial`](super::Sampling::Multinomial) a repeated prompt gets several continuations.
    pub fn batch<P: Into<Prompt>>(prompts: impl IntoIterator<Item = P>) -> Self {
        let prompts = prompts.into_iter().map(Into::into).collect();
        Request {
            prompts,
            options: None,
            chat_options: ChatOptions::default(),
            split_special_tokens: false,
            prefix_cache: None,
            cancellation: CancellationToken::new(),
            deadline: None,
        }
    }

    /// Sets the options. Without them [`GenerationOptions::for_model`] holds.
    #[must_use]
    pub fn with_options(mut self, options: GenerationOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Sets how conversations are rendered: the template's name, its variables such as `tools`, and whether the answer begins.
    #[must_use]
    pub fn with_chat_options(mut self, chat_options: ChatOptions) -> Self {
        self.chat_options = chat_options;
        self
    }

    /// Sets whether the text of special tokens, such as `</s>`, in a [`Prompt::Text`] is plain text. Off by default, as in
    /// transformers: it is a special token. For conversations see [`ChatOptions::split_special_tokens`].
    #[must_use]
    pub fn with_split_special_tokens(mut self, split_special_tokens: bool) -> Self {
        self.split_special_tokens = split_special_tokens;
        self
    }

    /// Computes only the tokens of the prompt that are not in `cache`, and keeps prompt and continuation there for the next
    /// request. For a single prompt: [`PrefixCache`] holds one sequence.
    #[must_use]
    pub fn with_prefix_cache(mut self, cache: &PrefixCache) -> Self {
        self.prefix_cache = Some(cache.clone());
        self
    }

    /// Ends the generation when `token` is cancelled, from any thread: before a step, in the middle of one if the backend can
    /// be told, and between two tokens. It is not an error: the result is what was generated, with
    /// [`FinishReason::Cancelled`](super::FinishReason::Cancelled).
    #[must_use]
    pub fn with_cancellation(mut self, token: &CancellationToken) -> Self {
        self.cancellation = token.clone();
        self
    }

    /// Ends the generation at `deadline`, wherever it is then, as [`Request::with_cancellation`] does: the result is what was
    /// generated, with [`FinishReason::Deadline`](super::FinishReason::Deadline). The time that the request waits before its
    /// stream starts counts. One thread of the process serves the deadlines of all requests.
    #[must_use]
    pub fn with_deadline(mut self, deadline: impl Into<Option<Instant>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// The prompts.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }
}
