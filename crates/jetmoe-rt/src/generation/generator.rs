//! The generator: checks requests and runs them.

use std::borrow::Cow;
use std::ops::ControlFlow;

use jetmoe_artifact::Task;
use jetmoe_text::{ChatOptions, ChatText};

use super::stream::Stream;
use super::{Completion, EncodedPrompt, Event, GenerationOptions, Prompt, Request};
use crate::{Error, Model, Result};

/// Continues texts, conversations and token ids.
///
/// There is one way to run a [`Request`]: [`Generator::stream`], an iterator over its [events](Event).
/// [`Generator::for_each`] calls a closure for each of them, and [`Generator::run`] and [`Generator::run_batch`] return the
/// completions alone.
///
/// ```no_run
/// use jetmoe_rt::{ChatMessage, Generator, LoadOptions, Model, Request};
///
/// let model = Model::load("path/to/artifact", &LoadOptions::default())?;
/// let generator = Generator::new(&model)?;
///
/// let mut stream = generator.stream(Request::new([ChatMessage::user("Who made the heaven?")]))?;
/// for event in &mut stream {
///     print!("{}", event?.text);
/// }
/// for answer in stream.finish()? {
///     println!("\n{} tokens, ended by {}", answer.token_ids.len(), answer.finish_reason);
/// }
/// # Ok::<(), jetmoe_rt::Error>(())
/// ```
///
/// Cloning shares the weights. A generator is `Send` and `Sync`: any number of threads can use it, and their steps take
/// turns where the backend computes one at a time.
#[derive(Debug, Clone)]
pub struct Generator {
    model: Model,
    eos_token_ids: Vec<u32>,
    pad_token_id: u32,
}

/// A request that has been checked: token ids, and the options that hold.
#[derive(Debug)]
pub(super) struct CheckedRequest {
    pub(super) prompts: Vec<Vec<u32>>,
    pub(super) options: GenerationOptions,
}

/// A prompt before it is encoded.
#[derive(Debug)]
pub(super) enum RenderedPrompt<'a> {
    /// Encoded with the special tokens that the tokenizer adds.
    Text(&'a str),
    /// A conversation, whose template contains the special tokens.
    Chat(ChatText),
    Tokens(&'a [u32]),
}

impl RenderedPrompt<'_> {
    /// The text; none of token ids.
    pub(super) fn as_str(&self) -> &str {
        match self {
            RenderedPrompt::Text(text) => text,
            RenderedPrompt::Chat(chat) => chat.as_str(),
            RenderedPrompt::Tokens(_) => "",
        }
    }
}

impl Generator {
    /// A generator for a model; the weights are shared. A model without a tokenizer takes token ids only.
    ///
    /// # Errors
    /// [`Error::WrongTask`] for a model that does not predict tokens.
    pub fn new(model: &Model) -> Result<Self> {
        model.require_task(Task::CausalLm)?;
        let (generation, config) = (model.generation_config(), model.config());
        let eos_token_ids = generation.eos_token_ids.clone();
        // padding is masked, so any id of the vocabulary is right
        let pad_token_id = [generation.pad_token_id, config.pad_token_id, eos_token_ids.first().copied()]
            .into_iter()
            .flatten()
            .find(|id| (*id as usize) < config.vocab_size)
            .unwrap_or(0);
        Ok(Generator { model: model.clone(), eos_token_ids, pad_token_id })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// End-of-sequence tokens of the model's [`GenerationConfig`](crate::GenerationConfig), unless
    /// [`GenerationOptions::eos_token_ids`] replaces them.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// The id that pads batches.
    pub(super) fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// Continues a single prompt and returns when it is complete.
    ///
    /// # Errors
    /// As [`Generator::stream`] and its events. [`Error::Option`] for a request with several prompts or none.
    pub fn run(&self, request: Request) -> Result<Completion> {
        let prompts = request.prompts.len();
        let mut completions = match prompts {
            1 => self.run_batch(request)?,
            _ => Vec::new(),
        };
        completions.pop().ok_or_else(|| Error::Option {
            option: "prompts",
            found: prompts.to_string(),
            expected: "1; a batch has several results",
        })
    }

    /// Continues every prompt and returns when all are complete, in the order of the prompts. Prompts may differ in length.
    ///
    /// # Errors
    /// As [`Generator::stream`] and its events.
    pub fn run_batch(&self, request: Request) -> Result<Vec<Completion>> {
        self.for_each(request, |_| ControlFlow::Continue(()))
    }

    /// Calls `on_event` with every event, and returns the completions. [`ControlFlow::Break`] ends the generation: sequences
    /// without a finish reason are then [cancelled](super::FinishReason::Cancelled).
    ///
    /// # Errors
    /// As [`Generator::stream`] and its events.
    pub fn for_each(
        &self,
        request: Request,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>> {
        let mut stream = self.stream(request)?;
        for event in &mut stream {
            if on_event(event?).is_break() {
                break;
            }
        }
        stream.finish()
    }

    /// Starts a request. Nothing is computed before the first call of [`Stream::next`](Iterator::next).
    ///
    /// # Errors
    /// Those of [`Generator::check`].
    pub fn stream(&self, request: Request) -> Result<Stream> {
        let checked = self.encode_request(&request)?;
        Stream::new(self, checked, request)
    }

    /// Rejects a request that cannot run, before anything is computed: a service can answer at once instead of queueing it.
    ///
    /// # Errors
    /// * [`Error::Option`]: an invalid value in the options, stop strings for a model without a tokenizer, or a prefix cache
    ///   or a prompt lookup for several prompts.
    /// * [`Error::EmptyPrompt`]: no text, no message or no token. A text of spaces is not empty.
    /// * [`Error::MaxLength`]: a prompt of [`GenerationOptions::max_length`] tokens or more.
    /// * [`Error::TooLong`], [`Error::TokenOutOfRange`]: a prompt that is too long or has an invalid id. A continuation that
    ///   fills all positions is not an error but [`FinishReason::ContextFull`](super::FinishReason::ContextFull).
    /// * [`Error::TextTooLong`]: a text with more bytes than [`Model::max_text_bytes`].
    /// * [`Error::Text`]: the tokenizer or the chat template rejects the prompt, or there is no chat template.
    /// * [`Error::NoTokenizer`]: a text or a conversation for a model without a tokenizer.
    pub fn check(&self, request: &Request) -> Result<()> {
        self.encode_request(request).map(drop)
    }

    /// Token ids of a prompt.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::NoTokenizer`], [`Error::TextTooLong`] or [`Error::Text`], as [`Generator::check`].
    pub fn encode(&self, prompt: impl Into<Prompt>) -> Result<Vec<u32>> {
        Ok(self.encode_with(prompt, &ChatOptions::default())?.token_ids)
    }

    /// Text and token ids of a prompt, with a conversation rendered as `chat_options` say. A request with the result as its prompt
    /// neither renders nor encodes it again.
    ///
    /// # Errors
    /// As [`Generator::encode`].
    pub fn encode_with(
        &self,
        prompt: impl Into<Prompt>,
        chat_options: &ChatOptions,
    ) -> Result<EncodedPrompt> {
        let prompt = prompt.into();
        let (text, token_ids) = self.encode_prompt(0, &prompt, chat_options, false)?;
        Ok(EncodedPrompt { text: text.map(Cow::into_owned), token_ids })
    }

    pub(super) fn encode_request(&self, request: &Request) -> Result<CheckedRequest> {
        let options = match &request.options {
            Some(options) => options.clone(),
            None => GenerationOptions::for_model(&self.model),
        };
        options.validate()?;
        self.check_options(&options, request)?;
        let prompts = request.prompts.iter().enumerate();
        let prompts = prompts
            .map(|(index, prompt)| {
                let (_, ids) =
                    self.encode_prompt(index, prompt, &request.chat_options, request.split_special_tokens)?;
                self.check_prompt(index, &ids)?;
                check_length(&ids, &options)?;
                Ok(ids)
            })
            .collect::<Result<_>>()?;
        Ok(CheckedRequest { prompts, options })
    }

    fn check_options(&self, options: &GenerationOptions, request: &Request) -> Result<()> {
        let rejected = |option, found, expected| Err(Error::Option { option, found, expected });
        if !options.stop.is_empty() && self.model.tokenizer().is_none() {
            return rejected("stop", format!("{:?}", options.stop), "none, as the model has no tokenizer");
        }
        if request.prompts.len() > 1 {
            let found = format!("set for a batch of {} prompts", request.prompts.len());
            let expected = "one prompt at a time; leave it out, or continue the prompts separately";
            if options.prompt_lookup.is_some() {
                return rejected("prompt_lookup", found, expected);
            }
            if request.prefix_cache.is_some() {
                return rejected("prefix_cache", found, expected);
            }
        }
        Ok(())
    }

    /// The text of a prompt, unless it is token ids, and its token ids. `split_special_tokens` holds for a text.
    fn encode_prompt<'a>(
        &self,
        index: usize,
        prompt: &'a Prompt,
        chat: &ChatOptions,
        split_special_tokens: bool,
    ) -> Result<(Option<Cow<'a, str>>, Vec<u32>)> {
        let (text, ids) = match self.render_prompt(index, prompt, chat)? {
            // the begin-of-sequence token alone would be a valid prompt, but an empty text is a mistake
            RenderedPrompt::Text("") => (Some(Cow::Borrowed("")), Vec::new()),
            RenderedPrompt::Text(text) => {
                let tokenizer = self.model.require_tokenizer()?;
                let ids = if split_special_tokens {
                    tokenizer.encode_split(text, true)?
                } else {
                    tokenizer.encode(text, true)?
                };
                (Some(Cow::Borrowed(text)), ids)
            }
            RenderedPrompt::Chat(chat) => {
                let ids = self.model.require_tokenizer()?.encode_chat_text(&chat)?;
                (Some(Cow::Owned(chat.into_string())), ids)
            }
            RenderedPrompt::Tokens(ids) => (None, ids.to_vec()),
        };
        if ids.is_empty() { Err(Error::EmptyPrompt { index }) } else { Ok((text, ids)) }
    }

    /// The text or the tokens of a prompt.
    pub(super) fn render_prompt<'a>(
        &self,
        index: usize,
        prompt: &'a Prompt,
        chat: &ChatOptions,
    ) -> Result<RenderedPrompt<'a>> {
        let rendered = match prompt {
            Prompt::Chat(messages) if messages.is_empty() => return Err(Error::EmptyPrompt { index }),
            Prompt::Chat(messages) => {
                RenderedPrompt::Chat(self.model.require_tokenizer()?.render_chat_text(messages, chat)?)
            }
            Prompt::Text(text) => RenderedPrompt::Text(text),
            Prompt::Tokens(ids) => RenderedPrompt::Tokens(ids),
        };
        self.model.check_text_bytes(index, rendered.as_str().len())?;
        Ok(rendered)
    }

    fn check_prompt(&self, index: usize, ids: &[u32]) -> Result<()> {
        self.check_length(index, ids.len())?;
        self.check_vocabulary(index, ids)
    }

    /// Rejects more tokens than the model has positions.
    pub(super) fn check_length(&self, index: usize, tokens: usize) -> Result<()> {
        let limit = self.model.config().max_position_embeddings;
        if tokens > limit { Err(Error::TooLong { index, tokens, limit }) } else { Ok(()) }
    }

    /// Rejects ids beyond the vocabulary. The session checks this too, but its column counts the padding.
    pub(super) fn check_vocabulary(&self, index: usize, ids: &[u32]) -> Result<()> {
        let config = self.model.config();
        match ids.iter().position(|id| *id as usize >= config.vocab_size) {
            None => Ok(()),
            Some(column) => Err(Error::TokenOutOfRange {
                id: ids[column],
                row: index,
                column,
                vocab_size: config.vocab_size,
            }),
        }
    }
}

fn check_length(prompt: &[u32], options: &GenerationOptions) -> Result<()> {
    match options.max_length {
        Some(limit) if prompt.len() >= limit => Err(Error::MaxLength { tokens: prompt.len(), limit }),
        _ => Ok(()),
    }
}
