//! Scoring: the log-probability of given continuations and texts.

mod request;
mod steps;

use jetmoe_text::ChatOptions;
use ndarray::ArrayView1;

pub use self::request::{Continuation, ScoringOptions, ScoringRequest};
use super::argmax::argmax;
use super::generator::RenderedPrompt;
use super::log_probabilities::{best, log_probability};
use super::{Generator, Prompt, TokenLogProbability, log_sum_exp};
use crate::{Error, Result};

/// How probable a continuation is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// Number of tokens before the continuation, special ones included; at least 1.
    pub prompt_tokens: usize,
    /// Every token of the continuation, in order; at least one.
    pub tokens: Vec<TokenScore>,
    /// Natural logarithm of the probability of the continuation: the sum over its tokens.
    pub log_probability: f64,
    /// Whether every token is the greedy one: whether greedy decoding of the prompt begins with this continuation.
    pub is_greedy: bool,
}

impl Score {
    /// e to the power of the mean negative log-probability per token, at least 1.
    pub fn perplexity(&self) -> f64 {
        (-self.log_probability / self.tokens.len() as f64).exp()
    }
}

/// How probable a given token was.
///
/// The distribution is that of [`LogProbabilities`](crate::LogProbabilities): the model's own, without any option.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenScore {
    /// Its id.
    pub token_id: u32,
    /// Natural logarithm of its probability, at most 0; negative infinity for a logit of negative infinity, NaN if a logit is
    /// NaN or none is finite.
    pub log_probability: f64,
    /// Whether it is the most probable token, of equally probable ones the one with the lowest id.
    pub is_greedy: bool,
    /// The most probable tokens, as many as [`ScoringOptions::log_probabilities`] says; the most probable first, the lower id
    /// first of equal ones.
    pub best: Vec<TokenLogProbability>,
}

impl TokenScore {
    /// The score of a token by the logits `[vocab_size]` before it, with the `count` most probable tokens in its place. `None`
    /// if there is no logit for it.
    pub fn of(logits: ArrayView1<'_, f32>, token_id: u32, count: usize) -> Option<Self> {
        let logit = *logits.get(token_id as usize)?;
        let normalizer = log_sum_exp(logits);
        let greedy = match logits.as_slice() {
            Some(logits) => argmax(logits),
            None => argmax(&logits.to_vec()),
        };
        Some(TokenScore {
            token_id,
            log_probability: log_probability(logit, normalizer),
            is_greedy: greedy.is_some_and(|(greedy, _)| greedy == token_id),
            best: best(logits, count, normalizer),
        })
    }
}

/// Token ids of prompt and continuation.
#[derive(Debug, PartialEq, Eq)]
struct Encoded {
    ids: Vec<u32>,
    prompt_tokens: usize,
}

impl Encoded {
    /// What the model reads: everything but the last token, after which nothing is scored.
    fn input(&self) -> &[u32] {
        self.ids.split_last().map_or(&[], |(_, input)| input)
    }

    /// What comes before the continuation.
    fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt_tokens]
    }

    /// What is scored.
    fn continuation(&self) -> &[u32] {
        &self.ids[self.prompt_tokens..]
    }
}

impl Generator {
    /// Scores continuations: the log-probability of each token of a given text after a prompt. Results are in the order of the
    /// request.
    ///
    /// The boundary between prompt and continuation is found as in lm-evaluation-harness (`lm_eval/api/model.py`,
    /// `_encode_pair`):
    ///
    /// 1. White space at the end of the prompt moves to the beginning of the continuation.
    /// 2. The prompt alone, and prompt and continuation together, are encoded: a text with special tokens, a conversation
    ///    without them, because its template contains them.
    /// 3. The continuation is what the whole has after as many tokens as the prompt has. It follows the tokens of the prompt
    ///    alone, even if the tokenizer merges characters across the boundary.
    ///
    /// Without a prompt, and after an empty one, the begin-of-sequence token is the prompt: the first token of the encoded text
    /// if it is that one, otherwise it is put before the text. A model without such a token takes its end-of-sequence token.
    /// Token ids are used as they are.
    ///
    /// A prompt of at least 32 tokens is computed once for all of its continuations.
    ///
    /// lm-evaluation-harness drops the beginning of a prompt that is too long; here it is an error. The last token is
    /// not read, so prompt and continuation may have one token more than the model has positions.
    ///
    /// ```no_run
    /// use jetmoe_rt::{Generator, LoadOptions, Model, ScoringRequest};
    ///
    /// let generator = Generator::new(&Model::load("path/to/artifact", &LoadOptions::default())?)?;
    /// let choices = [" light", " darkness"];
    /// let scores = generator.score(&ScoringRequest::continuations("And God said, Let there be", choices))?;
    /// for (choice, score) in choices.iter().zip(&scores) {
    ///     println!("{choice}: {:.3}, {} tokens", score.log_probability, score.tokens.len());
    /// }
    /// # Ok::<(), jetmoe_rt::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Generator::check_scoring`], before anything is computed. [`Error::Cancelled`], an error of the backend, or
    /// [`Error::Logits`] for logits that are NaN.
    pub fn score(&self, request: &ScoringRequest) -> Result<Vec<Score>> {
        let encoded = self.encode_scoring(request)?.into_iter().collect::<Result<Vec<_>>>()?;
        self.score_encoded(request, encoded.into_iter().map(Ok).collect())?.into_iter().collect()
    }

    /// As [`Generator::score`], with a result for each continuation: one that cannot be scored does not lose the others. After a
    /// cancellation those that were not scored have [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::Option`] for an invalid option, or an error of the backend.
    pub fn score_each(&self, request: &ScoringRequest) -> Result<Vec<Result<Score>>> {
        let encoded = self.encode_scoring(request)?;
        self.score_encoded(request, encoded)
    }

    /// Rejects a scoring that cannot run, before anything is computed.
    ///
    /// # Errors
    /// * [`Error::Option`]: an invalid option, a continuation that is a text after a prompt that is token ids, or no prompt for a
    ///   model without begin-of-sequence and end-of-sequence token.
    /// * [`Error::EmptyPrompt`]: a prompt without a message or a token.
    /// * [`Error::EmptyContinuation`]: a continuation without a token.
    /// * [`Error::TooLong`], [`Error::TokenOutOfRange`], [`Error::Text`], [`Error::NoTokenizer`]: as [`Generator::check`].
    pub fn check_scoring(&self, request: &ScoringRequest) -> Result<()> {
        self.encode_scoring(request)?.into_iter().try_for_each(|encoded| encoded.map(drop))
    }

    fn encode_scoring(&self, request: &ScoringRequest) -> Result<Vec<Result<Encoded>>> {
        request.options.validate()?;
        let items = request.items.iter().enumerate();
        Ok(items
            .map(|(index, (prompt, continuation))| {
                let encoded =
                    self.encode_pair(index, prompt.as_ref(), continuation, &request.chat_options)?;
                if encoded.continuation().is_empty() {
                    return Err(Error::EmptyContinuation { index });
                }
                self.check_length(index, encoded.input().len())?;
                self.check_vocabulary(index, &encoded.ids)?;
                Ok(encoded)
            })
            .collect())
    }

    fn encode_pair(
        &self,
        index: usize,
        prompt: Option<&Prompt>,
        continuation: &Continuation,
        chat: &ChatOptions,
    ) -> Result<Encoded> {
        let prompt = prompt.map(|prompt| self.render_prompt(index, prompt, chat)).transpose()?;
        let bytes = prompt.as_ref().map_or(0, |prompt| prompt.as_str().len());
        self.model().check_text_bytes(index, bytes.saturating_add(continuation.text_bytes()))?;
        match (prompt, continuation) {
            (None | Some(RenderedPrompt::Text("")), continuation) => self.encode_whole(continuation),
            (Some(RenderedPrompt::Tokens([])), _) => Err(Error::EmptyPrompt { index }),
            (Some(RenderedPrompt::Chat(chat)), _) if chat.as_str().is_empty() => {
                Err(Error::EmptyPrompt { index })
            }
            (Some(RenderedPrompt::Text(text)), Continuation::Text(continuation)) => {
                let tokenizer = self.model().require_tokenizer()?;
                let whole = tokenizer.encode(&format!("{text}{continuation}"), true)?;
                self.joined(tokenizer.encode(text.trim_end_matches(is_python_space), true)?, &whole)
            }
            (Some(RenderedPrompt::Chat(chat)), Continuation::Text(continuation)) => {
                let tokenizer = self.model().require_tokenizer()?;
                let whole = tokenizer.encode_chat_text(&tokenizer.continue_chat_text(&chat, continuation))?;
                let prompt = chat.trim_end_matches(is_python_space);
                self.joined(tokenizer.encode_chat_text(&prompt)?, &whole)
            }
            (Some(RenderedPrompt::Text(text)), Continuation::Tokens(continuation)) => {
                Ok(followed_by(self.model().require_tokenizer()?.encode(text, true)?, continuation))
            }
            (Some(RenderedPrompt::Chat(chat)), Continuation::Tokens(continuation)) => {
                let prompt = self.model().require_tokenizer()?.encode_chat_text(&chat)?;
                Ok(followed_by(prompt, continuation))
            }
            (Some(RenderedPrompt::Tokens(prompt)), Continuation::Tokens(continuation)) => {
                Ok(followed_by(prompt.to_vec(), continuation))
            }
            (Some(RenderedPrompt::Tokens(_)), Continuation::Text(_)) => Err(Error::Option {
                option: "continuation",
                found: format!("a text after a prompt of token ids, at index {index}"),
                expected: "token ids, because the tokens of a text depend on the text before it",
            }),
        }
    }

    /// The tokens of a prompt, and those that the whole text has after as many.
    fn joined(&self, mut ids: Vec<u32>, whole: &[u32]) -> Result<Encoded> {
        let prompt_tokens = ids.len();
        ids.extend(whole.get(prompt_tokens..).unwrap_or_default());
        // a prompt of white space has no token, unless the tokenizer adds one
        if prompt_tokens == 0 { self.after_prefix(ids) } else { Ok(Encoded { ids, prompt_tokens }) }
    }

    /// A continuation without a prompt.
    fn encode_whole(&self, continuation: &Continuation) -> Result<Encoded> {
        self.after_prefix(match continuation {
            Continuation::Text(text) => self.model().require_tokenizer()?.encode(text, true)?,
            Continuation::Tokens(ids) => ids.clone(),
        })
    }

    /// Scores everything after the begin-of-sequence token, which is put in front unless it is there.
    fn after_prefix(&self, mut ids: Vec<u32>) -> Result<Encoded> {
        let (generation, config) = (self.model().generation_config(), self.model().config());
        let candidates =
            [generation.bos_token_id, config.bos_token_id, self.eos_token_ids().first().copied()];
        let prefix = candidates.into_iter().flatten().find(|id| (*id as usize) < config.vocab_size);
        let prefix = prefix.ok_or_else(|| Error::Option {
            option: "prompt",
            found: "none".to_owned(),
            expected: "a prompt, as the model has no begin-of-sequence token",
        })?;
        if ids.first() != Some(&prefix) {
            ids.insert(0, prefix);
        }
        Ok(Encoded { ids, prompt_tokens: 1 })
    }

    fn score_encoded(
        &self,
        request: &ScoringRequest,
        encoded: Vec<Result<Encoded>>,
    ) -> Result<Vec<Result<Score>>> {
        let sequences = encoded.iter().enumerate();
        let sequences = sequences.filter_map(|(index, encoded)| Some((index, encoded.as_ref().ok()?)));
        let mut scores = self.score_sequences(request, sequences.collect())?;
        let results = encoded.into_iter().enumerate().map(|(index, encoded)| {
            let encoded = encoded?;
            let tokens = scores.remove(&index).ok_or(Error::Cancelled)?;
            self.sum(index, &encoded, tokens)
        });
        Ok(results.collect())
    }

    fn sum(&self, index: usize, encoded: &Encoded, tokens: Vec<TokenScore>) -> Result<Score> {
        let log_probability: f64 = tokens.iter().map(|token| token.log_probability).sum();
        if log_probability.is_nan() {
            return Err(Error::Logits {
                backend: self.model().backend(),
                problem: format!("those of sequence {index} contain NaN or have no finite maximum"),
            });
        }
        Ok(Score {
            prompt_tokens: encoded.prompt_tokens,
            is_greedy: tokens.iter().all(|token| token.is_greedy),
            tokens,
            log_probability,
        })
    }
}

/// The tokens of a continuation after those of its prompt.
fn followed_by(mut prompt: Vec<u32>, continuation: &[u32]) -> Encoded {
    let prompt_tokens = prompt.len();
    prompt.extend(continuation);
    Encoded { ids: prompt, prompt_tokens }
}

/// What Python's `str.rstrip` removes: white space, and four separators that Unicode does not count as such.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

#[cfg(test)]
mod tests;
