//! A job in the queue, and a job that has a slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_rt::ndarray::ArrayView1;
use jetmoe_rt::{
    CancellationToken, DeadlineGuard, Event, FinishReason, SequenceSampler, SlotTokens, SlotsOutput,
};
use tokio::sync::mpsc;

use super::metrics::EngineMetrics;
use super::outbox::{Delivery, Outbox};
use super::panics::guarded;
use super::schedule::Reader;
use super::scores::PromptScorer;
use super::{Constraint, Job, JobError, JobEvent, TokenExperts};

/// A job that waits for a slot.
#[derive(Debug)]
pub(super) struct Pending {
    job: Job,
    sampler: SequenceSampler,
    client: Client,
}

/// How a job reports, and what ends it from outside.
#[derive(Debug)]
struct Client {
    outbox: Arc<Outbox>,
    events: mpsc::UnboundedSender<JobEvent>,
    submitted: Instant,
    /// Cancelled when the client leaves, and at the deadline.
    interrupt: CancellationToken,
    deadline: Option<Instant>,
    _deadline_guard: Option<DeadlineGuard>,
}

impl Client {
    /// Why the job has to end; `None` if it has not.
    fn interruption(&self, now: Instant) -> Option<FinishReason> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            Some(FinishReason::Deadline)
        } else if self.interrupt.is_cancelled() {
            Some(FinishReason::Cancelled)
        } else {
            None
        }
    }

    fn send(&self, event: JobEvent) {
        let (events, interrupt) = (self.events.clone(), self.interrupt.clone());
        self.outbox.put(Delivery { event, events, interrupt });
    }

    fn end(&self, event: Event, metrics: &EngineMetrics) {
        let reason = event.finish_reason.unwrap_or(FinishReason::Failed);
        metrics.ended(reason, self.submitted.elapsed());
        self.send(JobEvent::Token { event, experts: Arc::default() });
    }

    fn fail(&self, error: JobError, metrics: &EngineMetrics) {
        metrics.failed(&error);
        match &error {
            JobError::ShuttingDown => {}
            JobError::Panic { message } => tracing::error!("a job failed by a panic: {message}"),
            error => tracing::warn!(kind = %error.kind(), "a job failed: {error}"),
        }
        self.send(JobEvent::Failed(Arc::new(error)));
    }
}

impl Pending {
    pub(super) fn new(
        job: Job,
        sampler: SequenceSampler,
        outbox: Arc<Outbox>,
    ) -> (Self, mpsc::UnboundedReceiver<JobEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let interrupt = CancellationToken::new();
        let guard = job.deadline.and_then(|deadline| {
            let guard = interrupt.cancel_at(deadline).inspect_err(|error| {
                tracing::warn!("the deadline of a job is looked at between steps only: {error}");
            });
            guard.ok()
        });
        let (submitted, deadline) = (Instant::now(), job.deadline);
        let client = Client { outbox, events, submitted, interrupt, deadline, _deadline_guard: guard };
        (Pending { job, sampler, client }, receiver)
    }

    pub(super) fn priority(&self) -> i32 {
        self.job.priority
    }

    pub(super) fn prompt_length(&self) -> usize {
        self.job.prompt.len()
    }

    /// Cancelled when the client leaves, and at the deadline.
    pub(super) fn interrupt(&self) -> &CancellationToken {
        &self.client.interrupt
    }

    /// Why the job has to end; `None` if it has not.
    pub(super) fn interruption(&self, now: Instant) -> Option<FinishReason> {
        self.client.interruption(now)
    }

    /// What of the prompt can be reused.
    pub(super) fn reusable_prompt(&self) -> &[u32] {
        reusable(&self.job.prompt, self.job.prompt_log_probabilities.is_some())
    }

    /// Ends the job in the queue.
    pub(super) fn end_interrupted(mut self, metrics: &EngineMetrics) {
        let reason = self.client.interruption(Instant::now()).unwrap_or(FinishReason::Cancelled);
        match guarded(|| Ok(self.sampler.end(reason)?)) {
            Ok(event) => self.client.end(event, metrics),
            Err(error) => self.client.fail(error, metrics),
        }
    }

    /// Ends the job in the queue with an error.
    pub(super) fn fail(self, error: JobError, metrics: &EngineMetrics) {
        self.client.fail(error, metrics);
    }
}

/// What of a prompt can be reused: all but the last token, whose logits are needed; nothing if those of all are.
fn reusable(prompt: &[u32], is_scored: bool) -> &[u32] {
    match prompt {
        [before @ .., _] if !is_scored => before,
        _ => &[],
    }
}

/// A job that has a slot.
#[derive(Debug)]
pub(super) struct Sequence {
    slot: usize,
    /// Its number in the order of admission.
    admitted: u64,
    /// When its slot was prepared.
    started: Option<Instant>,
    client: Client,
    sampler: SequenceSampler,
    constraint: Option<Constraint>,
    generates: bool,
    reports_experts: bool,
    /// Until the scores are reported.
    scorer: Option<PromptScorer>,
    /// Prompt and continuation.
    tokens: Vec<u32>,
    prompt_length: usize,
    /// Tokens that the slot holds.
    read: usize,
    /// Whether the whole prompt has been read once.
    has_prompt: bool,
    /// When its last token was sent.
    last_token: Option<Instant>,
}

/// What became of a sequence after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on.
    Open,
    /// It has read its prompt for the first time, and goes on.
    PromptRead,
    /// It has ended, and said so.
    Ended,
}

impl Sequence {
    /// Gives a job a slot.
    pub(super) fn new(pending: Pending, slot: usize, admitted: u64) -> Self {
        let Pending { job, sampler, client } = pending;
        Sequence {
            slot,
            admitted,
            started: None,
            client,
            sampler,
            constraint: job.constraint,
            generates: job.generates,
            reports_experts: job.reports_experts,
            scorer: job.prompt_log_probabilities.map(PromptScorer::new),
            prompt_length: job.prompt.len(),
            tokens: job.prompt,
            read: 0,
            has_prompt: false,
            last_token: None,
        }
    }

    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Prompt and continuation.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether the whole prompt has been read once.
    pub(super) fn has_prompt(&self) -> bool {
        self.has_prompt
    }

    /// Whether its slot is prepared.
    pub(super) fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// What of the prompt can be reused.
    pub(super) fn reusable_prompt(&self) -> &[u32] {
        reusable(&self.tokens[..self.prompt_length], self.scorer.is_some())
    }

    /// Begins with a slot that holds the first `cached` tokens of the prompt.
    pub(super) fn start(&mut self, cached: usize, metrics: &EngineMetrics) {
        self.read = cached;
        let now = Instant::now();
        self.started = Some(now);
        let queued = now.saturating_duration_since(self.client.submitted);
        metrics.started(queued, (!self.reusable_prompt().is_empty()).then_some(cached));
        self.client.send(JobEvent::Started { cached_tokens: cached, queued });
    }

    /// Whether the job reports the experts of its tokens.
    pub(super) fn reports_experts(&self) -> bool {
        self.reports_experts
    }

    /// Tokens that the slot holds.
    pub(super) fn tokens_read(&self) -> usize {
        self.read
    }

    /// Cancelled when the client leaves, and at the deadline.
    pub(super) fn interrupt(&self) -> &CancellationToken {
        &self.client.interrupt
    }

    /// Why the job has to end; `None` if it has not.
    pub(super) fn interruption(&self, now: Instant) -> Option<FinishReason> {
        self.client.interruption(now)
    }

    /// Time since its slot was prepared.
    pub(super) fn service_time(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// As the plan of a step sees it.
    pub(super) fn reader(&self) -> Reader {
        Reader { slot: self.slot, admitted: self.admitted, unread: self.tokens.len() - self.read }
    }

    /// The next `tokens` unread tokens, as a step reads them.
    pub(super) fn part(&self, tokens: usize) -> SlotTokens<'_> {
        let end = self.read + tokens;
        let logits = match &self.scorer {
            Some(_) => tokens,
            None => usize::from(end == self.tokens.len()),
        };
        SlotTokens { slot: self.slot, token_ids: &self.tokens[self.read..end], logits }
    }

    /// Reads every token again, because the slot has lost them.
    pub(super) fn restart(&mut self) {
        self.read = 0;
    }

    /// Takes the result of a step that read `tokens` tokens, and samples the next token if they were the last ones.
    ///
    /// # Errors
    /// What ends the job.
    pub(super) fn advance(
        &mut self,
        tokens: usize,
        (output, part): (&SlotsOutput, usize),
        experts: TokenExperts,
        metrics: &EngineMetrics,
        backend: impl Fn() -> String,
    ) -> Result<Progress, JobError> {
        let (first, end) = (self.read, self.read + tokens);
        self.read = end;
        metrics.prompt_tokens(end.min(self.prompt_length).saturating_sub(first));
        if let Some(scorer) = &mut self.scorer {
            scorer.add(&self.tokens[..self.prompt_length], first, output.logits(part)?, backend)?;
        }
        if end < self.tokens.len() {
            return Ok(Progress::Open);
        }
        let is_prompt = !std::mem::replace(&mut self.has_prompt, true);
        if let Some(scorer) = self.scorer.take() {
            self.client.send(JobEvent::Prompt(scorer.into_scores()));
        }
        let reason = match (self.sampler.finish_reason(), self.generates) {
            (Some(reason), _) => Some(reason),
            (None, false) => Some(FinishReason::Length),
            (None, true) => None,
        };
        if let Some(reason) = reason {
            self.end(reason, metrics)?;
            return Ok(Progress::Ended);
        }
        let logits = output.logits(part)?;
        let Some(last) = logits.nrows().checked_sub(1) else {
            return Err(JobError::Model(missing_logits(logits.dim())));
        };
        let progress = self.sample(logits.row(last), experts, metrics)?;
        Ok(if is_prompt && progress == Progress::Open { Progress::PromptRead } else { progress })
    }

    /// Chooses the next token by logits `[vocab_size]`, and reports it.
    fn sample(
        &mut self,
        logits: ArrayView1<'_, f32>,
        experts: TokenExperts,
        metrics: &EngineMetrics,
    ) -> Result<Progress, JobError> {
        let event = match &mut self.constraint {
            None => self.sampler.sample(logits)?,
            Some(constraint) => {
                let allowed = constraint.allowed()?;
                self.sampler.sample_allowed(logits, |token_id| allowed.contains(token_id))?
            }
        };
        if let Some(token) = &event.token {
            self.tokens.push(token.token_id);
        }
        let now = Instant::now();
        let since = self.last_token.replace(now);
        metrics.token(since.is_none(), now.saturating_duration_since(since.unwrap_or(self.client.submitted)));
        let reason = event.finish_reason;
        let token_id = event.token.as_ref().map(|token| token.token_id);
        if let Some(reason) = reason {
            metrics.ended(reason, self.client.submitted.elapsed());
        }
        self.client.send(JobEvent::Token { event, experts });
        if reason.is_some() {
            return Ok(Progress::Ended);
        }
        let (Some(constraint), Some(token_id)) = (&mut self.constraint, token_id) else {
            return Ok(Progress::Open);
        };
        constraint.push(token_id)?;
        if constraint.is_complete() {
            // only the end is allowed, so no step is needed to choose it
            self.end(FinishReason::Eos, metrics)?;
            return Ok(Progress::Ended);
        }
        Ok(Progress::Open)
    }

    /// Ends the job, and says so.
    ///
    /// # Errors
    /// Text that was held back cannot be decoded.
    pub(super) fn end(&mut self, reason: FinishReason, metrics: &EngineMetrics) -> Result<(), JobError> {
        let event = self.sampler.end(reason)?;
        self.client.end(event, metrics);
        Ok(())
    }

    /// Ends the job with an error.
    pub(super) fn fail(&self, error: JobError, metrics: &EngineMetrics) {
        self.client.fail(error, metrics);
    }
}

fn missing_logits((rows, vocab_size): (usize, usize)) -> jetmoe_rt::Error {
    let name = jetmoe_rt::OutputName::Logits;
    jetmoe_rt::Error::OutputShape { name, expected: vec![1, vocab_size], found: vec![rows, vocab_size] }
}
