//! The steps of a scoring: batches of sequences, and continuations that share the computation of their prompt.

use std::collections::BTreeMap;

use ndarray::{ArrayView3, s};

use super::{Encoded, ScoringRequest, TokenScore};
use crate::{Error, Generator, OutputName, Result, Session, StepOutput, TokenBatch};

/// A prompt of at least so many tokens is computed once for all of its continuations. Each of them then has steps of its own,
/// which costs more than to compute a shorter prompt again in a batch.
const SHARED_PROMPT: usize = 32;

/// A sequence with its index in the request.
type Indexed<'a> = (usize, &'a Encoded);

impl Generator {
    /// The scores of each sequence by its index. After a cancellation some are missing.
    pub(super) fn score_sequences(
        &self,
        request: &ScoringRequest,
        sequences: Vec<Indexed<'_>>,
    ) -> Result<BTreeMap<usize, Vec<TokenScore>>> {
        let mut by_prompt: BTreeMap<&[u32], Vec<Indexed<'_>>> = BTreeMap::new();
        for (index, encoded) in sequences {
            by_prompt.entry(encoded.prompt()).or_default().push((index, encoded));
        }
        let is_shared =
            |prompt: &[u32], group: &[Indexed<'_>]| group.len() > 1 && prompt.len() >= SHARED_PROMPT;
        let (shared, single): (Vec<_>, Vec<_>) =
            by_prompt.into_iter().partition(|(prompt, group)| is_shared(prompt, group));
        let mut batched: Vec<Indexed<'_>> = single.into_iter().flat_map(|(_, group)| group).collect();
        batched.sort_by_key(|(index, encoded)| (encoded.ids.len(), *index));

        let mut scores = BTreeMap::new();
        for batch in batched.chunks(request.options.batch_size) {
            match self.score_batch(request, batch) {
                Err(Error::Cancelled) => return Ok(scores),
                found => scores.extend(found?),
            }
        }
        for (prompt, group) in shared {
            match self.score_group(request, prompt, &group, &mut scores) {
                Err(Error::Cancelled) => return Ok(scores),
                found => found?,
            }
        }
        Ok(scores)
    }

    /// Scores the continuations of sequences that share every step.
    fn score_batch(
        &self,
        request: &ScoringRequest,
        batch: &[Indexed<'_>],
    ) -> Result<Vec<(usize, Vec<TokenScore>)>> {
        let inputs: Vec<&[u32]> = batch.iter().map(|(_, encoded)| encoded.input()).collect();
        let tokens = TokenBatch::left_padded(&inputs, self.pad_token_id())?;
        let length = tokens.sequence_length();
        let columns = (request.options.max_step_tokens / batch.len()).max(1);
        let mut session = self.scoring_session(request)?;
        // all inputs end in the last column, so the logits of a row's continuation are those of its last columns
        let first = batch.iter().map(|(_, encoded)| length - encoded.continuation().len()).min().unwrap_or(0);
        if first > 0 {
            session.prefill(&tokens.columns(0..first), columns)?;
        }
        let mut scores: Vec<(usize, Vec<TokenScore>)> =
            batch.iter().map(|(index, _)| (*index, Vec::new())).collect();
        for start in (first..length).step_by(columns) {
            let end = length.min(start + columns);
            let output = session.step(&tokens.columns(start..end))?;
            let logits = self.logits(&output, batch.len(), end - start)?;
            for (row, (_, encoded)) in batch.iter().enumerate() {
                let targets = encoded.continuation();
                let before = length - targets.len();
                let targets = (start.max(before)..end).map(|column| (column, targets[column - before]));
                scores[row].1.extend(targets.filter_map(|(column, target)| {
                    let logits = logits.slice(s![row, column - start, ..]);
                    TokenScore::of(logits, target, request.options.log_probabilities)
                }));
            }
        }
        Ok(scores)
    }

    /// Scores several continuations of one prompt, which is computed once. What is complete is in `scores` after an error.
    fn score_group(
        &self,
        request: &ScoringRequest,
        prompt: &[u32],
        group: &[Indexed<'_>],
        scores: &mut BTreeMap<usize, Vec<TokenScore>>,
    ) -> Result<()> {
        let (columns, best) = (request.options.max_step_tokens, request.options.log_probabilities);
        let mut session = self.scoring_session(request)?;
        let batch = TokenBatch::left_padded(&[prompt], self.pad_token_id())?;
        let output = session.prefill(&batch, columns)?;
        let first = output.last_logits(0)?;
        for (index, encoded) in group {
            let targets = encoded.continuation();
            let mut found: Vec<TokenScore> =
                targets.first().and_then(|target| TokenScore::of(first, *target, best)).into_iter().collect();
            // each step reads some tokens of the continuation, and scores those after them
            let read = targets.split_last().map_or(&[][..], |(_, read)| read);
            let next = targets.get(1..).unwrap_or_default();
            for (tokens, targets) in read.chunks(columns).zip(next.chunks(columns)) {
                let output = session.step(&TokenBatch::left_padded(&[tokens], self.pad_token_id())?)?;
                let logits = self.logits(&output, 1, tokens.len())?;
                found.extend(targets.iter().enumerate().filter_map(|(column, target)| {
                    TokenScore::of(logits.slice(s![0, column, ..]), *target, best)
                }));
            }
            session.truncate(prompt.len())?;
            scores.insert(*index, found);
        }
        Ok(())
    }

    fn scoring_session(&self, request: &ScoringRequest) -> Result<Session> {
        let mut session = self.model().session()?;
        session.set_cancellation(request.cancellation.clone());
        Ok(session)
    }

    /// The logits of every new token, `[batch, tokens, vocab_size]`.
    fn logits<'a>(&self, output: &'a StepOutput, batch: usize, tokens: usize) -> Result<ArrayView3<'a, f32>> {
        let logits = output.logits()?;
        let expected = [batch, tokens, self.model().config().vocab_size];
        if logits.shape() == expected {
            return Ok(logits);
        }
        Err(Error::OutputShape {
            name: OutputName::Logits,
            expected: expected.to_vec(),
            found: logits.shape().to_vec(),
        })
    }
}
