use std::fmt;
use std::ops::ControlFlow;

use jetmoe_artifact::Task;
use ndarray::Array2;

use super::sampling::{Sampler, SequenceMemory};
use super::{GenerationOptions, PrefixCache};
use crate::{Error, Model, Result, Session, StepOutput, TokenBatch};

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model produced an end token.
    EndToken,
    /// The text came to a stop string.
    StopString,
    /// `max_new_tokens` tokens were generated.
    MaxNewTokens,
    /// Prompt and continuation fill all positions of the model.
    MaxPositions,
    /// The callback asked for the end.
    Cancelled,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FinishReason::EndToken => "end-token",
            FinishReason::StopString => "stop-string",
            FinishReason::MaxNewTokens => "max-new-tokens",
            FinishReason::MaxPositions => "max-positions",
            FinishReason::Cancelled => "cancelled",
        })
    }
}

/// A token that was just generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenEvent {
    /// Which prompt of the batch it continues, from 0.
    pub sequence: usize,
    /// Its number in the continuation, from 0.
    pub index: usize,
    /// The token.
    pub token_id: u32,
    /// Set if it is the last of its sequence.
    pub finish_reason: Option<FinishReason>,
}

/// One continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, the end token included if one ended them; no padding. Empty where the prompt alone fills all
    /// positions of the model.
    pub token_ids: Vec<u32>,
    /// Why there are no more.
    pub finish_reason: FinishReason,
    /// What it did not cost.
    pub statistics: GenerationStatistics,
}

/// What a continuation did not cost because it was known or guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GenerationStatistics {
    /// Tokens of the prompt that a [`PrefixCache`] had, and that were not computed again.
    pub reused_tokens: usize,
    /// Drafts that were checked, see [`PromptLookup`](crate::PromptLookup).
    pub drafted_tokens: usize,
    /// Drafts that were right; so many steps were spared.
    pub accepted_tokens: usize,
}

/// What becomes of a generation after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Continue,
    /// The token's sequence came to a stop string; the others go on.
    Stop,
    /// Nothing more of any sequence is wanted.
    Cancel,
}

/// Continues prompts of token ids. It needs no tokenizer.
#[derive(Debug, Clone)]
pub struct TokenGenerator {
    model: Model,
    end_token_ids: Vec<u32>,
    pad_token_id: u32,
}

impl TokenGenerator {
    /// Generates with a model, whose weights are shared.
    ///
    /// # Errors
    /// [`Error::WrongTask`] for a model that does not predict tokens.
    pub fn new(model: &Model) -> Result<Self> {
        model.require_task(Task::CausalLm)?;
        let (generation, config) = (model.generation_config(), model.config());
        let named = &generation.eos_token_ids;
        let end_token_ids = if named.is_empty() { config.eos_token_ids.clone() } else { named.clone() };
        // any id would do, padding is masked; but it must be one that the model has
        let pad_token_id = [generation.pad_token_id, config.pad_token_id, end_token_ids.first().copied()]
            .into_iter()
            .flatten()
            .find(|id| (*id as usize) < config.vocab_size)
            .unwrap_or(0);
        Ok(TokenGenerator { model: model.clone(), end_token_ids, pad_token_id })
    }

    /// The model that generates.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens that end a continuation unless [`GenerationOptions::end_token_ids`] says otherwise.
    pub fn end_token_ids(&self) -> &[u32] {
        &self.end_token_ids
    }

    /// Continues every prompt; results are in the prompts' order. Prompts may differ in length.
    ///
    /// # Errors
    /// * [`Error::Option`]: a value in `options` that makes no sense, or a stop string, which needs a tokenizer.
    /// * [`Error::EmptyPrompt`], [`Error::TooLong`], [`Error::TokenOutOfRange`]: a prompt that the model cannot take.
    ///   A continuation that reaches the end of the positions is no error but [`FinishReason::MaxPositions`].
    /// * [`Error::Backend`]: the backend failed. [`Error::Logits`]: it computed NaN.
    pub fn generate<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
    ) -> Result<Vec<Generated>> {
        self.generate_with(prompts, options, |_| ControlFlow::Continue(()))
    }

    /// As [`TokenGenerator::generate`], and calls `on_token` with every new token of every sequence, end tokens
    /// included. [`ControlFlow::Break`] ends all sequences at once; those that come after it in the batch then lack
    /// the token of that step.
    ///
    /// # Errors
    /// As [`TokenGenerator::generate`].
    pub fn generate_with<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
        mut on_token: impl FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        refuse_stop_strings(options)?;
        self.run(prompts, options, None, &mut uncritical(&mut on_token))
    }

    /// As [`TokenGenerator::generate_with`] for one prompt, of which it computes only what `cache` does not hold.
    /// Afterwards `cache` holds this prompt and its continuation; nothing where a step failed, and what it held before
    /// where nothing was computed, since the prompt was refused or fills all positions.
    ///
    /// # Errors
    /// As [`TokenGenerator::generate`].
    pub fn generate_cached(
        &self,
        prompt: &[u32],
        options: &GenerationOptions,
        cache: &mut PrefixCache,
        mut on_token: impl FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Generated> {
        refuse_stop_strings(options)?;
        let mut generated = self.run(&[prompt], options, Some(cache), &mut uncritical(&mut on_token))?;
        // one prompt in, one continuation out
        generated.pop().ok_or(Error::EmptyPrompt { index: 0 })
    }

    /// A cache is for one prompt.
    pub(super) fn run<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
        mut cache: Option<&mut PrefixCache>,
        on_token: &mut dyn FnMut(TokenEvent) -> Result<Verdict>,
    ) -> Result<Vec<Generated>> {
        options.validate()?;
        self.check(prompts, options)?;
        let end_token_ids = options.end_token_ids.as_deref().unwrap_or(&self.end_token_ids);
        let seed = options.seed.unwrap_or_else(rand::random);
        let mut sampler = Sampler::new(options);
        let mut sequences: Vec<Sequence<'_>> = prompts
            .iter()
            .enumerate()
            .map(|(index, prompt)| {
                let positions = self.model.config().max_position_embeddings - prompt.as_ref().len();
                Sequence::new(prompt.as_ref(), sampler.memory(seed, index, prompt.as_ref()), positions)
            })
            .collect();
        if !sequences.iter().any(Sequence::is_open) {
            return Ok(results(sequences));
        }
        let (mut session, mut output) = self.read_prompts(&mut sequences, options, cache.as_deref_mut())?;
        // what the last step was given behind the newest token, to be confirmed or not
        let mut drafts: Vec<u32> = Vec::new();
        'steps: loop {
            for (index, sequence) in
                sequences.iter_mut().enumerate().filter(|(_, sequence)| sequence.is_open())
            {
                for column in 0..=drafts.len() {
                    let logits = output.logits_before_last(index, drafts.len() - column)?;
                    let token_id =
                        sampler.choose(logits, &mut sequence.memory).ok_or_else(|| self.no_numbers(index))?;
                    let is_drafted = drafts.get(column) == Some(&token_id);
                    sequence.statistics.accepted_tokens += usize::from(is_drafted);
                    sequence.push(token_id, options.max_new_tokens, end_token_ids);
                    match on_token(sequence.newest(index, token_id))? {
                        Verdict::Continue => {}
                        Verdict::Stop => sequence.finish_reason = Some(FinishReason::StopString),
                        Verdict::Cancel => break 'steps,
                    }
                    // behind a wrong draft, the scores are those of another text
                    if !is_drafted || !sequence.is_open() {
                        break;
                    }
                }
            }
            if !sequences.iter().any(Sequence::is_open) {
                break;
            }
            if let ([sequence], Some(lookup)) = (sequences.as_mut_slice(), options.prompt_lookup) {
                let known = sequence.known();
                session.truncate(known.len() - 1)?;
                // a step gives one token more than it has drafts
                drafts = lookup.draft(&known, sequence.room(options.max_new_tokens) - 1);
                sequence.statistics.drafted_tokens += drafts.len();
            }
            output = session.step(&self.next_batch(&sequences, &drafts)?)?;
        }
        if let (Some(cache), [sequence]) = (cache, sequences.as_slice()) {
            cache.keep(&self.model, session, sequence.known())?;
        }
        Ok(results(sequences))
    }

    /// A session that has read all prompts, and the scores of their last tokens.
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

    /// Refuses prompts that the model cannot take, before anything is computed.
    fn check<S: AsRef<[u32]>>(&self, prompts: &[S], options: &GenerationOptions) -> Result<()> {
        if options.prompt_lookup.is_some() && prompts.len() > 1 {
            return Err(Error::Option {
                option: "prompt_lookup",
                found: format!("set for a batch of {} prompts", prompts.len()),
                expected: "one prompt at a time; leave it out, or continue the prompts one after the other",
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
            // the session would find it too, but count the padding in front of it
            if let Some(column) = prompt.iter().position(|id| *id as usize >= config.vocab_size) {
                let (id, vocab_size) = (prompt[column], config.vocab_size);
                return Err(Error::TokenOutOfRange { id, row: index, column, vocab_size });
            }
        }
        Ok(())
    }

    /// The newest token of every sequence, and behind it the drafts, of which a batch has none. A finished sequence
    /// gets padding that does not count, so that it stays where it is and never comes to the end of the positions.
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

    fn no_numbers(&self, index: usize) -> Error {
        Error::Logits {
            backend: self.model.backend(),
            problem: format!("those of sequence {index} hold NaN or no finite maximum"),
        }
    }
}

/// Token ids know no text, so there is nothing to stop at.
fn refuse_stop_strings(options: &GenerationOptions) -> Result<()> {
    if options.stop.is_empty() {
        return Ok(());
    }
    Err(Error::Option {
        option: "stop",
        found: format!("{:?}", options.stop),
        expected: "no stop string where token ids are generated; TextGenerator knows texts",
    })
}

/// A callback that can only cancel.
fn uncritical(
    on_token: &mut impl FnMut(TokenEvent) -> ControlFlow<()>,
) -> impl FnMut(TokenEvent) -> Result<Verdict> {
    move |event| {
        Ok(match on_token(event) {
            ControlFlow::Continue(()) => Verdict::Continue,
            ControlFlow::Break(()) => Verdict::Cancel,
        })
    }
}

/// A continuation that is being made.
#[derive(Debug)]
struct Sequence<'p> {
    prompt: &'p [u32],
    token_ids: Vec<u32>,
    finish_reason: Option<FinishReason>,
    /// Positions behind the prompt.
    positions: usize,
    memory: SequenceMemory,
    statistics: GenerationStatistics,
}

impl<'p> Sequence<'p> {
    fn new(prompt: &'p [u32], memory: SequenceMemory, positions: usize) -> Self {
        let finish_reason = (positions == 0).then_some(FinishReason::MaxPositions);
        let statistics = GenerationStatistics::default();
        Sequence { prompt, token_ids: Vec::new(), finish_reason, positions, memory, statistics }
    }

    /// Prompt and continuation.
    fn known(&self) -> Vec<u32> {
        [self.prompt, &self.token_ids].concat()
    }

    /// How many tokens may still come; at least 1 while it is open.
    fn room(&self, max_new_tokens: usize) -> usize {
        max_new_tokens.min(self.positions) - self.token_ids.len()
    }

    /// What is told about the newest token.
    fn newest(&self, sequence: usize, token_id: u32) -> TokenEvent {
        let (index, finish_reason) = (self.token_ids.len() - 1, self.finish_reason);
        TokenEvent { sequence, index, token_id, finish_reason }
    }

    fn is_open(&self) -> bool {
        self.finish_reason.is_none()
    }

    fn push(&mut self, token_id: u32, max_new_tokens: usize, end_token_ids: &[u32]) {
        self.token_ids.push(token_id);
        self.finish_reason = if end_token_ids.contains(&token_id) {
            Some(FinishReason::EndToken)
        } else if self.token_ids.len() >= max_new_tokens {
            Some(FinishReason::MaxNewTokens)
        } else if self.token_ids.len() >= self.positions {
            Some(FinishReason::MaxPositions)
        } else {
            None
        };
    }
}

/// Sequences that nothing else ended were cancelled.
fn results(sequences: Vec<Sequence<'_>>) -> Vec<Generated> {
    sequences
        .into_iter()
        .map(|sequence| Generated {
            token_ids: sequence.token_ids,
            finish_reason: sequence.finish_reason.unwrap_or(FinishReason::Cancelled),
            statistics: sequence.statistics,
        })
        .collect()
}

#[cfg(test)]
mod tests;
