//! Generation of token ids: a batch of prompts in, continuations out.

use std::ops::ControlFlow;

use jetmoe_artifact::Task;
use ndarray::Array2;

use super::sampling::{Sampler, SequenceState};
use super::{GenerationOptions, PrefixCache};
use crate::{Error, Model, Result, Session, StepOutput, TokenBatch};

/// Why a continuation ended. `Display` gives the name that the JSON output uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model generated an end-of-sequence token.
    #[strum(to_string = "end-token")]
    Eos,
    /// The text contains a stop string.
    #[strum(to_string = "stop-string")]
    StopString,
    /// `max_new_tokens` tokens were generated.
    #[strum(to_string = "max-new-tokens")]
    Length,
    /// Prompt and continuation fill all positions of the model.
    #[strum(to_string = "max-positions")]
    ContextFull,
    /// The callback cancelled the generation.
    #[strum(to_string = "cancelled")]
    Cancelled,
}

/// A generated token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenEvent {
    /// Index in the batch of the prompt that it continues.
    pub sequence: usize,
    /// Its index in the continuation.
    pub index: usize,
    /// Its id.
    pub token_id: u32,
    /// Set for the last token of its sequence.
    pub finish_reason: Option<FinishReason>,
}

/// The continuation of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, including the end-of-sequence token, without padding. Empty if the prompt alone fills all
    /// positions of the model.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Work saved by the prefix cache and by speculation.
    pub statistics: GenerationStatistics,
}

/// Work saved by the prefix cache and by speculation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GenerationStatistics {
    /// Tokens of the prompt that were taken from a [`PrefixCache`].
    pub reused_tokens: usize,
    /// Draft tokens that were verified, see [`PromptLookup`](crate::PromptLookup).
    pub drafted_tokens: usize,
    /// Draft tokens that were accepted; each saves one step.
    pub accepted_tokens: usize,
}

/// How generation continues after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepControl {
    /// Continue all sequences.
    Continue,
    /// End the token's sequence at a stop string; continue the others.
    Stop,
    /// End all sequences.
    Cancel,
}

/// Continues prompts of token ids, without a tokenizer.
#[derive(Debug, Clone)]
pub struct TokenGenerator {
    model: Model,
    eos_token_ids: Vec<u32>,
    pad_token_id: u32,
}

impl TokenGenerator {
    /// A generator for a model; the weights are shared.
    ///
    /// # Errors
    /// [`Error::WrongTask`] for a model that does not predict tokens.
    pub fn new(model: &Model) -> Result<Self> {
        model.require_task(Task::CausalLm)?;
        let (generation, config) = (model.generation_config(), model.config());
        let eos_token_ids = match generation.eos_token_ids.as_slice() {
            [] => config.eos_token_ids.clone(),
            ids => ids.to_vec(),
        };
        // padding is masked, so any id of the vocabulary is right
        let pad_token_id = [generation.pad_token_id, config.pad_token_id, eos_token_ids.first().copied()]
            .into_iter()
            .flatten()
            .find(|id| (*id as usize) < config.vocab_size)
            .unwrap_or(0);
        Ok(TokenGenerator { model: model.clone(), eos_token_ids, pad_token_id })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// End-of-sequence tokens, unless [`GenerationOptions::eos_token_ids`] replaces them.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// Continues every prompt; results are in the order of the prompts. Prompts may differ in length.
    ///
    /// # Errors
    /// * [`Error::Option`]: an invalid value in `options`, or a stop string, which needs a tokenizer.
    /// * [`Error::EmptyPrompt`], [`Error::TooLong`], [`Error::TokenOutOfRange`]: an invalid prompt. A continuation that
    ///   fills all positions is not an error but [`FinishReason::ContextFull`].
    /// * [`Error::Backend`]: the backend failed. [`Error::Logits`]: the logits are NaN.
    pub fn generate<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
    ) -> Result<Vec<Generation>> {
        self.generate_with(prompts, options, |_| ControlFlow::Continue(()))
    }

    /// As [`TokenGenerator::generate`], and calls `on_token` with every new token of every sequence, including
    /// end-of-sequence tokens. [`ControlFlow::Break`] ends all sequences; those later in the batch lack the token of that
    /// step.
    ///
    /// # Errors
    /// As [`TokenGenerator::generate`].
    pub fn generate_with<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
        mut on_token: impl FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>> {
        reject_stop_strings(options)?;
        self.run(prompts, options, None, &mut infallible(&mut on_token))
    }

    /// As [`TokenGenerator::generate_with`] for one prompt, and computes only the tokens that are not in `cache`.
    /// Afterwards `cache` holds this prompt and its continuation. It is empty if a step failed, and unchanged if no step
    /// ran because the prompt is invalid or fills all positions.
    ///
    /// # Errors
    /// As [`TokenGenerator::generate`].
    pub fn generate_cached(
        &self,
        prompt: &[u32],
        options: &GenerationOptions,
        cache: &mut PrefixCache,
        mut on_token: impl FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Generation> {
        reject_stop_strings(options)?;
        let mut generated = self.run(&[prompt], options, Some(cache), &mut infallible(&mut on_token))?;
        // one prompt has one continuation
        generated.pop().ok_or(Error::EmptyPrompt { index: 0 })
    }

    /// The generation loop. `cache` requires a single prompt.
    pub(super) fn run<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
        mut cache: Option<&mut PrefixCache>,
        on_token: &mut dyn FnMut(TokenEvent) -> Result<StepControl>,
    ) -> Result<Vec<Generation>> {
        options.validate()?;
        self.check_prompts(prompts, options)?;
        let eos_token_ids = options.eos_token_ids.as_deref().unwrap_or(&self.eos_token_ids);
        let seed = options.seed.unwrap_or_else(rand::random);
        let mut sampler = Sampler::new(options);
        let mut sequences: Vec<Sequence<'_>> = prompts
            .iter()
            .enumerate()
            .map(|(index, prompt)| {
                let positions = self.model.config().max_position_embeddings - prompt.as_ref().len();
                Sequence::new(
                    prompt.as_ref(),
                    sampler.start_sequence(seed, index, prompt.as_ref()),
                    positions,
                )
            })
            .collect();
        if !sequences.iter().any(Sequence::is_open) {
            return Ok(into_generations(sequences));
        }
        let (mut session, mut output) = self.read_prompts(&mut sequences, options, cache.as_deref_mut())?;
        // tokens that the last step read after the newest one, to be verified
        let mut drafts: Vec<u32> = Vec::new();
        'steps: loop {
            for (index, sequence) in
                sequences.iter_mut().enumerate().filter(|(_, sequence)| sequence.is_open())
            {
                for column in 0..=drafts.len() {
                    let logits = output.logits_before_last(index, drafts.len() - column)?;
                    let token_id = sampler
                        .sample(logits, &mut sequence.state)
                        .ok_or_else(|| self.invalid_logits(index))?;
                    let is_drafted = drafts.get(column) == Some(&token_id);
                    sequence.statistics.accepted_tokens += usize::from(is_drafted);
                    sequence.push(token_id, options.max_new_tokens, eos_token_ids);
                    match on_token(sequence.event(index, token_id))? {
                        StepControl::Continue => {}
                        StepControl::Stop => sequence.finish_reason = Some(FinishReason::StopString),
                        StepControl::Cancel => break 'steps,
                    }
                    // logits after a rejected draft belong to another sequence
                    if !is_drafted || !sequence.is_open() {
                        break;
                    }
                }
            }
            if !sequences.iter().any(Sequence::is_open) {
                break;
            }
            if let ([sequence], Some(lookup)) = (sequences.as_mut_slice(), options.prompt_lookup) {
                let token_ids = sequence.all_token_ids();
                session.truncate(token_ids.len() - 1)?;
                // a step generates one token more than it has drafts
                drafts = lookup.draft(&token_ids, sequence.remaining(options.max_new_tokens) - 1);
                sequence.statistics.drafted_tokens += drafts.len();
            }
            output = session.step(&self.next_batch(&sequences, &drafts)?)?;
        }
        if let (Some(cache), [sequence]) = (cache, sequences.as_slice()) {
            cache.store(&self.model, session, sequence.all_token_ids())?;
        }
        Ok(into_generations(sequences))
    }

    /// A session that has read all prompts, and the logits of their last tokens.
    fn read_prompts(
        &self,
        sequences: &mut [Sequence<'_>],
        options: &GenerationOptions,
        cache: Option<&mut PrefixCache>,
    ) -> Result<(Session, StepOutput)> {
        let mut session = match (cache, &mut *sequences) {
            (Some(cache), [sequence]) => {
                let (session, reused) = cache.take(&self.model, sequence.prompt)?;
                sequence.statistics.reused_tokens = reused;
                session
            }
            _ => self.model.session()?,
        };
        let new: Vec<&[u32]> =
            sequences.iter().map(|sequence| &sequence.prompt[sequence.statistics.reused_tokens..]).collect();
        let batch = TokenBatch::left_padded(&new, self.pad_token_id)?;
        let output = session.prefill(&batch, options.prefill_chunk)?;
        Ok((session, output))
    }

    /// Rejects invalid prompts before anything is computed.
    fn check_prompts<S: AsRef<[u32]>>(&self, prompts: &[S], options: &GenerationOptions) -> Result<()> {
        if options.prompt_lookup.is_some() && prompts.len() > 1 {
            return Err(Error::Option {
                option: "prompt_lookup",
                found: format!("set for a batch of {} prompts", prompts.len()),
                expected: "one prompt at a time; leave it out, or continue the prompts separately",
            });
        }
        let config = self.model.config();
        for (index, prompt) in prompts.iter().enumerate() {
            let prompt = prompt.as_ref();
            if prompt.is_empty() {
                return Err(Error::EmptyPrompt { index });
            }
            if prompt.len() > config.max_position_embeddings {
                return Err(Error::TooLong { tokens: prompt.len(), limit: config.max_position_embeddings });
            }
            // the session checks this too, but its column counts the padding
            if let Some(column) = prompt.iter().position(|id| *id as usize >= config.vocab_size) {
                let (id, vocab_size) = (prompt[column], config.vocab_size);
                return Err(Error::TokenOutOfRange { id, row: index, column, vocab_size });
            }
        }
        Ok(())
    }

    /// The newest token of every sequence, followed by the drafts (none for several sequences). A finished sequence gets
    /// masked padding, so its positions do not advance.
    fn next_batch(&self, sequences: &[Sequence<'_>], drafts: &[u32]) -> Result<TokenBatch> {
        let newest =
            |sequence: &Sequence<'_>| sequence.token_ids.last().copied().filter(|_| sequence.is_open());
        let ids = Array2::from_shape_fn((sequences.len(), 1 + drafts.len()), |(row, column)| {
            match column.checked_sub(1) {
                None => newest(&sequences[row]).unwrap_or(self.pad_token_id),
                Some(draft) => drafts[draft],
            }
        });
        let mask = Array2::from_shape_fn(ids.dim(), |(row, _)| sequences[row].is_open());
        TokenBatch::masked(ids, mask)
    }

    fn invalid_logits(&self, index: usize) -> Error {
        Error::Logits {
            backend: self.model.backend(),
            problem: format!("those of sequence {index} contain NaN or have no finite maximum"),
        }
    }
}

/// Stop strings need text, and this generator has token ids only.
fn reject_stop_strings(options: &GenerationOptions) -> Result<()> {
    if options.stop.is_empty() {
        return Ok(());
    }
    Err(Error::Option {
        option: "stop",
        found: format!("{:?}", options.stop),
        expected: "no stop string for token ids; use TextGenerator",
    })
}

/// Adapts a callback that cannot fail and can only cancel.
fn infallible(
    on_token: &mut impl FnMut(TokenEvent) -> ControlFlow<()>,
) -> impl FnMut(TokenEvent) -> Result<StepControl> {
    move |event| {
        Ok(match on_token(event) {
            ControlFlow::Continue(()) => StepControl::Continue,
            ControlFlow::Break(()) => StepControl::Cancel,
        })
    }
}

/// A continuation in progress.
#[derive(Debug)]
struct Sequence<'p> {
    prompt: &'p [u32],
    token_ids: Vec<u32>,
    finish_reason: Option<FinishReason>,
    /// Positions after the prompt.
    positions: usize,
    state: SequenceState,
    statistics: GenerationStatistics,
}

impl<'p> Sequence<'p> {
    fn new(prompt: &'p [u32], state: SequenceState, positions: usize) -> Self {
        let finish_reason = (positions == 0).then_some(FinishReason::ContextFull);
        let statistics = GenerationStatistics::default();
        Sequence { prompt, token_ids: Vec::new(), finish_reason, positions, state, statistics }
    }

    /// Prompt and continuation.
    fn all_token_ids(&self) -> Vec<u32> {
        [self.prompt, &self.token_ids].concat()
    }

    /// Tokens that may still be generated; at least 1 while the sequence is open.
    fn remaining(&self, max_new_tokens: usize) -> usize {
        max_new_tokens.min(self.positions) - self.token_ids.len()
    }

    /// The event for the newest token.
    fn event(&self, sequence: usize, token_id: u32) -> TokenEvent {
        let (index, finish_reason) = (self.token_ids.len() - 1, self.finish_reason);
        TokenEvent { sequence, index, token_id, finish_reason }
    }

    fn is_open(&self) -> bool {
        self.finish_reason.is_none()
    }

    fn push(&mut self, token_id: u32, max_new_tokens: usize, eos_token_ids: &[u32]) {
        self.token_ids.push(token_id);
        self.finish_reason = if eos_token_ids.contains(&token_id) {
            Some(FinishReason::Eos)
        } else if self.token_ids.len() >= max_new_tokens {
            Some(FinishReason::Length)
        } else if self.token_ids.len() >= self.positions {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
    }
}

/// Sequences without a finish reason were cancelled.
fn into_generations(sequences: Vec<Sequence<'_>>) -> Vec<Generation> {
    sequences
        .into_iter()
        .map(|sequence| Generation {
            token_ids: sequence.token_ids,
            finish_reason: sequence.finish_reason.unwrap_or(FinishReason::Cancelled),
            statistics: sequence.statistics,
        })
        .collect()
}

#[cfg(test)]
mod tests;
