//! Sampling for programs that step a [`Session`](crate::Session) themselves.

use ndarray::ArrayView1;

use super::generator::CheckedRequest;
use super::sampling::Sampler;
use super::sequence::Sequence;
use super::{Completion, Event, FinishReason, GenerationOptions, Generator, Prompt, Request};
use crate::{Error, Result};

/// Continues one sequence from logits that the caller computes: rules, filters, draw, stop conditions and text are those of
/// [`Generator::stream`], of which this is a part. For continuous batching: a program steps many sequences in one
/// [`Session`](crate::Session) and has a sampler for each, see [`Session::clear_sequence`](crate::Session::clear_sequence).
///
/// ```no_run
/// use jetmoe_rt::{GenerationOptions, Generator, LoadOptions, Model, TokenBatch};
///
/// let model = Model::load("path/to/artifact", &LoadOptions::default())?;
/// let generator = Generator::new(&model)?;
/// let mut sampler = generator.sampler("In the beginning", &GenerationOptions::for_model(&model))?;
/// let mut session = model.session()?;
/// let mut batch = TokenBatch::left_padded(&[sampler.prompt()], 0)?;
/// while sampler.finish_reason().is_none() {
///     let output = session.prefill(&batch, 512)?;
///     let event = sampler.sample(output.last_logits(0)?)?;
///     print!("{}", event.text);
///     batch = TokenBatch::next_tokens(&event.token.map(|token| token.token_id).into_iter().collect::<Vec<_>>());
/// }
/// # Ok::<(), jetmoe_rt::Error>(())
/// ```
#[derive(Debug)]
pub struct SequenceSampler {
    generator: Generator,
    options: GenerationOptions,
    eos_token_ids: Vec<u32>,
    sampler: Sampler,
    sequence: Sequence,
}

impl Generator {
    /// A sampler for the continuation of a prompt. [`GenerationOptions::prefill_chunk`] and
    /// [`GenerationOptions::prompt_lookup`] concern the steps, so it does not use them. Samplers with one seed draw the same
    /// numbers: give each sequence a seed of its own, or none.
    ///
    /// # Errors
    /// Those of [`Generator::check`].
    pub fn sampler(&self, prompt: impl Into<Prompt>, options: &GenerationOptions) -> Result<SequenceSampler> {
        let request = Request::new(prompt).with_options(options.clone());
        let CheckedRequest { mut prompts, options } = self.encode_request(&request)?;
        let prompt = prompts.pop().ok_or(Error::EmptyPrompt { index: 0 })?;
        let sampler = Sampler::new(&options);
        let eos_token_ids = self.eos_token_ids_of(&options);
        let seed = options.seed.unwrap_or_else(rand::random);
        let sequence = self.start_sequence(&sampler, &options, &eos_token_ids, (seed, 0), prompt)?;
        Ok(SequenceSampler { generator: self.clone(), options, eos_token_ids, sampler, sequence })
    }
}

impl SequenceSampler {
    /// Token ids of the prompt.
    pub fn prompt(&self) -> &[u32] {
        self.sequence.prompt()
    }

    /// The tokens so far, without the prompt. The last one is what the next step reads.
    pub fn token_ids(&self) -> &[u32] {
        self.sequence.new_token_ids()
    }

    /// Why the sequence has ended; `None` as long as it goes on. A prompt that fills all positions has ended at once.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.sequence.finish_reason
    }

    /// Chooses the next token, by the logits `[vocab_size]` of the last one. [`Event::sequence`] is 0.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of logits, [`Error::Option`] after the end, [`Error::Logits`] and
    /// [`Error::NoTokenLeft`] if no token can be chosen, [`Error::Text`] if the tokens cannot be decoded.
    pub fn sample(&mut self, logits: ArrayView1<'_, f32>) -> Result<Event> {
        self.sample_from(logits, None)
    }

    /// As [`SequenceSampler::sample`], and chooses only a token for which `is_allowed` is true, as a grammar needs it. The other
    /// tokens are excluded after the rules for logits and before the filters. Log-probabilities stay those of the model.
    ///
    /// # Errors
    /// As [`SequenceSampler::sample`]; [`Error::NoTokenLeft`] if no allowed token is left by the rules.
    pub fn sample_allowed(
        &mut self,
        logits: ArrayView1<'_, f32>,
        is_allowed: impl Fn(u32) -> bool,
    ) -> Result<Event> {
        self.sample_from(logits, Some(&is_allowed))
    }

    fn sample_from(
        &mut self,
        logits: ArrayView1<'_, f32>,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Event> {
        let model = self.generator.model();
        if let Some(reason) = self.finish_reason() {
            return Err(Error::Option {
                option: "sequence",
                found: format!("ended by {reason}"),
                expected: "one that has not ended",
            });
        }
        let vocab_size = model.config().vocab_size;
        if logits.len() != vocab_size {
            return Err(Error::Shape {
                tensor: "logits".to_owned(),
                expected: vec![vocab_size],
                found: vec![logits.len()],
            });
        }
        let token_id = self.sequence.choose(&mut self.sampler, logits, model, allowed)?;
        self.sequence.push(token_id, logits, &self.options, &self.eos_token_ids)
    }

    /// Ends the sequence without another token. The event has the text that was held back for a stop string; if that completes one,
    /// the reason is [`FinishReason::StopString`]. A sequence that has ended keeps its reason.
    ///
    /// # Errors
    /// [`Error::Text`]: bytes that were held back cannot be decoded.
    pub fn end(&mut self, reason: FinishReason) -> Result<Event> {
        match self.sequence.closed_event() {
            Some(event) => Ok(event),
            None => self.sequence.end(reason),
        }
    }

    /// What was generated. A sequence that has not ended is [cancelled](FinishReason::Cancelled); its text includes what was
    /// held back for a stop string. The times are 0, because the caller computes the steps.
    ///
    /// # Errors
    /// [`Error::Text`]: bytes that were held back cannot be decoded.
    pub fn finish(mut self) -> Result<Completion> {
        if self.sequence.is_open() {
            self.sequence.end(FinishReason::Cancelled)?;
        }
        Ok(self.sequence.into_completion(&self.options))
    }
}
