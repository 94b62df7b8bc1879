//! The generation loop: an iterator that runs a step whenever the tokens of the last one have been returned.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use jetmoe_backend::CancellationToken;
use ndarray::Array2;

use super::generator::CheckedRequest;
use super::interruption::Interruption;
use super::sampling::Sampler;
use super::sequence::Sequence;
use super::{Completion, Event, FinishReason, GenerationOptions, Generator, PrefixCache, Request, Timings};
use crate::{Error, Result, Session, StepOutput, TokenBatch};

/// A running generation: an iterator over its [events](Event), in the order in which tokens are generated.
///
/// A call of [`Iterator::next`] computes until there is another event, which takes a step at most times and the whole prompt
/// at the first. Nothing is computed between two calls. After an error the iterator ends.
///
/// Ending early is always possible: by the request's [`CancellationToken`] from any thread, by [`Stream::finish`], or by
/// dropping the stream. The request's [`PrefixCache`] then holds what was computed.
///
/// A stream is `Send`: it can be created in one thread and run in another.
#[derive(Debug)]
pub struct Stream {
    generator: Generator,
    options: GenerationOptions,
    eos_token_ids: Vec<u32>,
    interruption: Interruption,
    prefix_cache: Option<PrefixCache>,
    sampler: Sampler,
    sequences: Vec<Sequence>,
    /// `None` before the first call, and after the end.
    session: Option<Session>,
    state: State,
    /// Events that are computed and not returned.
    events: VecDeque<Event>,
    clock: Clock,
}

#[derive(Debug)]
enum State {
    /// Nothing has been computed.
    Start,
    /// The first `read` columns of the prompts have been read.
    Prompt { batch: TokenBatch, read: usize },
    /// A step has been computed, and some of its tokens have been sampled.
    Step(Step),
    /// There are no more events to compute.
    End,
}

/// The output of a step, from which the next tokens are sampled.
#[derive(Debug)]
struct Step {
    output: StepOutput,
    /// Tokens that the step read after the newest one, to be verified.
    drafts: Vec<u32>,
    /// The sequence that is next.
    row: usize,
    /// Tokens of that sequence that have been sampled from this step.
    column: usize,
}

/// What a [`Stream`] measures.
#[derive(Debug)]
struct Clock {
    start: Instant,
    /// When the running call of `next` began.
    resumed: Option<Instant>,
    /// Time inside of `next`, except for the running call.
    computing: Duration,
    /// `computing` at the end of the prompt.
    prompt: Option<Duration>,
}

impl Clock {
    /// The times of a sequence at this moment.
    fn timings(&self, first_token: Option<Duration>, has_token: bool) -> Timings {
        let computing = self.computing();
        let prompt = self.prompt.unwrap_or(computing);
        Timings {
            first_token: first_token.or_else(|| has_token.then(|| self.start.elapsed())),
            prompt,
            generation: computing.saturating_sub(prompt),
        }
    }

    fn computing(&self) -> Duration {
        self.computing + self.resumed.map_or(Duration::ZERO, |resumed| resumed.elapsed())
    }
}

impl Stream {
    pub(super) fn new(generator: &Generator, checked: CheckedRequest, request: Request) -> Result<Self> {
        let CheckedRequest { prompts, options } = checked;
        let seed = options.seed.unwrap_or_else(rand::random);
        let sampler = Sampler::new(&options);
        let eos_token_ids = generator.eos_token_ids_of(&options);
        let sequences = prompts.into_iter().enumerate().map(|(index, prompt)| {
            generator.start_sequence(&sampler, &options, &eos_token_ids, (seed, index), prompt)
        });
        let sequences: Vec<Sequence> = sequences.collect::<Result<_>>()?;
        Ok(Stream {
            events: sequences.iter().filter_map(Sequence::closed_event).collect(),
            sequences,
            eos_token_ids,
            generator: generator.clone(),
            options,
            interruption: Interruption::new(request.cancellation, request.deadline),
            prefix_cache: request.prefix_cache,
            sampler,
            session: None,
            state: State::Start,
            clock: Clock { start: Instant::now(), resumed: None, computing: Duration::ZERO, prompt: None },
        })
    }

    /// The completions so far, in the order of the prompts. Sequences that have not ended are
    /// [cancelled](FinishReason::Cancelled); their text includes what was held back for a stop string. After the last event
    /// this only returns what was generated.
    ///
    /// # Errors
    /// [`Error::Text`]: bytes that were held back cannot be decoded. An error of the backend while the session is kept in the
    /// prefix cache.
    pub fn finish(mut self) -> Result<Vec<Completion>> {
        self.end_open(FinishReason::Cancelled)?;
        self.keep_session()?;
        let options = std::mem::take(&mut self.options);
        let sequences = std::mem::take(&mut self.sequences).into_iter();
        Ok(sequences.map(|sequence| sequence.into_completion(&options)).collect())
    }

    /// Computes until there is an event; `None` after the last.
    fn advance(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(reason) = self.interruption.reason() {
                self.end_open(reason)?;
            }
            if !self.sequences.iter().any(Sequence::is_open) {
                self.keep_session()?;
                if self.events.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            match std::mem::replace(&mut self.state, State::End) {
                State::Start => self.start()?,
                State::Prompt { batch, read } => self.read_prompt(batch, read)?,
                State::Step(step) => self.sample(step)?,
                State::End => return Ok(None),
            }
        }
    }

    /// Takes a session, with the beginning of the prompt if it is cached.
    fn start(&mut self) -> Result<()> {
        let mut session = match (&self.prefix_cache, self.sequences.as_mut_slice()) {
            (Some(cache), [sequence]) => {
                let (session, reused) = cache.take(self.generator.model(), sequence.prompt())?;
                sequence.statistics.reused_tokens = reused;
                session
            }
            _ => self.generator.model().session()?,
        };
        session.set_cancellation(self.interruption.step_token().clone());
        self.session = Some(session);
        let new = self.sequences.iter().map(|one| &one.prompt()[one.statistics.reused_tokens..]);
        let batch = TokenBatch::left_padded(&new.collect::<Vec<_>>(), self.generator.pad_token_id())?;
        self.state = State::Prompt { batch, read: 0 };
        Ok(())
    }

    /// Reads a chunk of the prompts.
    fn read_prompt(&mut self, batch: TokenBatch, read: usize) -> Result<()> {
        let end = batch.sequence_length().min(read.saturating_add(self.options.prefill_chunk));
        let chunk = batch.columns(read..end);
        let Some(output) = self.run(|session| session.prefill(&chunk, chunk.sequence_length()))? else {
            return Ok(());
        };
        self.state = if end < batch.sequence_length() {
            State::Prompt { batch, read: end }
        } else {
            self.clock.prompt = Some(self.clock.computing());
            State::Step(Step { output, drafts: Vec::new(), row: 0, column: 0 })
        };
        Ok(())
    }

    /// Runs a step; `None` if it was cancelled, and then the sequences have ended.
    fn run(&mut self, step: impl FnOnce(&mut Session) -> Result<StepOutput>) -> Result<Option<StepOutput>> {
        let Some(session) = &mut self.session else { return Ok(None) };
        match step(session) {
            Ok(output) => Ok(Some(output)),
            Err(Error::Cancelled) => {
                self.end_open(self.interruption.reason().unwrap_or(FinishReason::Cancelled))?;
                Ok(None)
            }
            Err(error) => {
                // what its cache holds is not kept
                self.session = None;
                Err(error)
            }
        }
    }

    /// Samples the next token of a step's output, or runs the next step if there is none.
    fn sample(&mut self, mut step: Step) -> Result<()> {
        while step.row < self.sequences.len() {
            if !self.sequences[step.row].is_open() {
                (step.row, step.column) = (step.row + 1, 0);
                continue;
            }
            let event = self.sample_token(&mut step)?;
            self.events.push_back(event);
            self.state = State::Step(step);
            return Ok(());
        }
        let drafts = self.draft()?;
        let batch = self.next_batch(&drafts)?;
        if let Some(output) = self.run(|session| session.step(&batch))? {
            self.state = State::Step(Step { output, drafts, row: 0, column: 0 });
        }
        Ok(())
    }

    /// Samples a token of the open sequence `step.row` and moves on to what follows it.
    fn sample_token(&mut self, step: &mut Step) -> Result<Event> {
        let sequence = &mut self.sequences[step.row];
        let logits = step.output.logits_before_last(step.row, step.drafts.len() - step.column)?;
        let token_id = sequence.choose(&mut self.sampler, logits, self.generator.model(), None)?;
        let is_drafted = step.drafts.get(step.column) == Some(&token_id);
        sequence.statistics.accepted_tokens += usize::from(is_drafted);
        let event = sequence.push(token_id, logits, &self.options, &self.eos_token_ids)?;
        sequence.timings = self.clock.timings(sequence.timings.first_token, true);
        // logits after a rejected draft belong to another sequence
        if is_drafted && sequence.is_open() {
            step.column += 1;
        } else {
            (step.row, step.column) = (step.row + 1, 0);
        }
        Ok(event)
    }

    /// Drafts for the next step. Rejected drafts of the last one are removed from the cache.
    fn draft(&mut self) -> Result<Vec<u32>> {
        let ([sequence], Some(lookup), Some(session)) =
            (self.sequences.as_mut_slice(), self.options.prompt_lookup, &mut self.session)
        else {
            return Ok(Vec::new());
        };
        let token_ids = sequence.all_token_ids();
        session.truncate(token_ids.len() - 1)?;
        // a step generates one token more than it has drafts
        let drafts = lookup.draft(token_ids, sequence.remaining() - 1);
        sequence.statistics.drafted_tokens += drafts.len();
        Ok(drafts)
    }

    /// The newest token of every sequence, followed by the drafts (none for several sequences). A finished sequence gets
    /// masked padding, so its positions do not advance.
    fn next_batch(&self, drafts: &[u32]) -> Result<TokenBatch> {
        let newest =
            |sequence: &Sequence| sequence.all_token_ids().last().copied().filter(|_| sequence.is_open());
        let ids =
            Array2::from_shape_fn((self.sequences.len(), 1 + drafts.len()), |(row, column)| {
                match column.checked_sub(1) {
                    None => newest(&self.sequences[row]).unwrap_or(self.generator.pad_token_id()),
                    Some(draft) => drafts[draft],
                }
            });
        let mask = Array2::from_shape_fn(ids.dim(), |(row, _)| self.sequences[row].is_open());
        TokenBatch::masked(ids, mask)
    }

    /// Ends every open sequence. The session is kept.
    fn end_open(&mut self, reason: FinishReason) -> Result<()> {
        for sequence in self.sequences.iter_mut().filter(|sequence| sequence.is_open()) {
            sequence.timings = self.clock.timings(sequence.timings.first_token, false);
            self.events.push_back(sequence.end(reason)?);
        }
        Ok(())
    }

    /// Stores the session in the prefix cache, with the tokens that it has read.
    fn keep_session(&mut self) -> Result<()> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        let (Some(cache), [sequence]) = (&self.prefix_cache, self.sequences.as_slice()) else {
            return Ok(());
        };
        session.set_cancellation(CancellationToken::new());
        let mut token_ids = sequence.all_token_ids().to_vec();
        // no step has read the last token of the continuation; of the prompt some may be unread
        let unread = usize::from(!sequence.new_token_ids().is_empty());
        token_ids.truncate(session.past_length().min(token_ids.len() - unread));
        cache.store(self.generator.model(), session, token_ids)
    }
}

impl Iterator for Stream {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.clock.resumed = Some(Instant::now());
        let result = self.advance();
        self.clock.computing = self.clock.computing();
        self.clock.resumed = None;
        if result.is_err() {
            self.session = None;
            self.state = State::End;
            self.events.clear();
            for sequence in self.sequences.iter_mut().filter(|sequence| sequence.is_open()) {
                sequence.finish_reason = Some(FinishReason::Failed);
            }
        }
        result.transpose()
    }
}

impl FusedIterator for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Err(error) = self.keep_session() {
            // there is no caller to return it to, and without the session the next prompt is computed as a whole
            tracing::warn!("the prefix cache is empty, because the session could not be kept: {error}");
        }
    }
}
