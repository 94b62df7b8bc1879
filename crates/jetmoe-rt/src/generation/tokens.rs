use std::fmt;
use std::ops::ControlFlow;

use jetmoe_artifact::Task;
use ndarray::Array2;

use super::GenerationOptions;
use super::sampling::{Sampler, SequenceMemory};
use crate::{Error, Model, Result, TokenBatch};

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
    /// * [`Error::Run`]: the runtime failed, or computed logits that are no numbers.
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
        if !options.stop.is_empty() {
            return Err(Error::Option {
                option: "stop",
                found: format!("{:?}", options.stop),
                expected: "no stop string where token ids are generated; TextGenerator knows texts",
            });
        }
        self.run(prompts, options, &mut |event| {
            Ok(match on_token(event) {
                ControlFlow::Continue(()) => Verdict::Continue,
                ControlFlow::Break(()) => Verdict::Cancel,
            })
        })
    }

    pub(super) fn run<S: AsRef<[u32]>>(
        &self,
        prompts: &[S],
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(TokenEvent) -> Result<Verdict>,
    ) -> Result<Vec<Generated>> {
        options.validate()?;
        self.check(prompts)?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let end_token_ids = options.end_token_ids.as_deref().unwrap_or(&self.end_token_ids);
        let seed = options.seed.unwrap_or_else(rand::random);
        let mut sampler = Sampler::new(options);
        let mut sequences: Vec<Sequence> = prompts
            .iter()
            .enumerate()
            .map(|(index, prompt)| {
                let positions = self.model.config().max_position_embeddings - prompt.as_ref().len();
                Sequence::new(sampler.memory(seed, index, prompt.as_ref()), positions)
            })
            .collect();
        let mut session = self.model.session()?;
        let mut batch = TokenBatch::left_padded(prompts, self.pad_token_id)?;
        while sequences.iter().any(Sequence::is_open) {
            let output = session.step(&batch)?;
            for index in 0..sequences.len() {
                let sequence = &mut sequences[index];
                if !sequence.is_open() {
                    continue;
                }
                let token_id = sampler
                    .choose(output.last_logits(index)?, &mut sequence.memory)
                    .ok_or_else(|| self.no_numbers(index))?;
                sequence.push(token_id, options.max_new_tokens, end_token_ids);
                let event = TokenEvent {
                    sequence: index,
                    index: sequence.token_ids.len() - 1,
                    token_id,
                    finish_reason: sequence.finish_reason,
                };
                match on_token(event)? {
                    Verdict::Continue => {}
                    Verdict::Stop => sequence.finish_reason = Some(FinishReason::StopString),
                    Verdict::Cancel => return Ok(results(sequences)),
                }
            }
            batch = self.next_batch(&sequences)?;
        }
        Ok(results(sequences))
    }

    /// Refuses prompts that the model cannot take, before anything is computed.
    fn check<S: AsRef<[u32]>>(&self, prompts: &[S]) -> Result<()> {
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

    /// The newest token of every sequence; a finished one gets padding that does not count, so that it stays where
    /// it is and never comes to the end of the positions.
    fn next_batch(&self, sequences: &[Sequence]) -> Result<TokenBatch> {
        let shape = (sequences.len(), 1);
        let newest = |sequence: &Sequence| sequence.token_ids.last().copied().filter(|_| sequence.is_open());
        let ids =
            Array2::from_shape_fn(shape, |(row, _)| newest(&sequences[row]).unwrap_or(self.pad_token_id));
        let mask = Array2::from_shape_fn(shape, |(row, _)| sequences[row].is_open());
        TokenBatch::masked(ids, mask)
    }

    fn no_numbers(&self, index: usize) -> Error {
        Error::Run {
            runtime: self.model.runtime(),
            message: format!(
                "the next-token logits of sequence {index} hold NaN or no finite maximum, so no token can be chosen; \
                 the weights or the precision are not usable"
            ),
        }
    }
}

/// A continuation that is being made.
#[derive(Debug)]
struct Sequence {
    token_ids: Vec<u32>,
    finish_reason: Option<FinishReason>,
    /// Positions behind the prompt.
    positions: usize,
    memory: SequenceMemory,
}

impl Sequence {
    fn new(memory: SequenceMemory, positions: usize) -> Self {
        let finish_reason = (positions == 0).then_some(FinishReason::MaxPositions);
        Sequence { token_ids: Vec::new(), finish_reason, positions, memory }
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
fn results(sequences: Vec<Sequence>) -> Vec<Generated> {
    sequences
        .into_iter()
        .map(|sequence| Generated {
            token_ids: sequence.token_ids,
            finish_reason: sequence.finish_reason.unwrap_or(FinishReason::Cancelled),
        })
        .collect()
}

#[cfg(test)]
mod tests;
