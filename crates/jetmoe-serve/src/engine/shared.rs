//! What the thread of an engine shares with its callers: the queue, and whether it takes jobs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jetmoe_rt::{CancellationToken, DeadlineGuard};
use tokio::sync::watch;

use super::metrics::EngineMetrics;
use super::outbox::Outbox;
use super::queue::{Full, Queue, QueueKey};
use super::sequence::Pending;
use super::{EngineLoad, JobError};

/// Least and most time that a full queue advises to wait.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The state that callers and the thread change.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// A job came, or the engine is to end.
    changed: Condvar,
    /// Cancelled at the deadline of a shutdown; the jobs that are left fail then.
    stop: CancellationToken,
    has_ended: watch::Sender<bool>,
    /// Mean time of a job in its slot, in microseconds.
    service_time: AtomicU64,
    metrics: EngineMetrics,
    outbox: Arc<Outbox>,
}

#[derive(Debug)]
struct State {
    queue: Queue<Pending>,
    phase: Phase,
    /// Cancels `stop` at the deadline.
    deadline: Option<(Instant, Option<DeadlineGuard>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It takes jobs.
    Open,
    /// It completes those that it has.
    Closing,
    /// The thread has ended.
    Ended,
}

/// What became of a job that was submitted.
#[derive(Debug)]
pub(super) enum Submission {
    Queued(QueueKey),
    Full(Full),
    Closed,
}

/// What the thread is to do next.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Jobs that ended in the queue, by their deadline or their client.
    pub(super) interrupted: Vec<Pending>,
    /// Jobs for free slots.
    pub(super) admitted: Vec<Pending>,
    /// Whether nothing is left to do, for ever.
    pub(super) is_over: bool,
}

impl Shared {
    pub(super) fn new(queue: usize, metrics: EngineMetrics, outbox: Outbox) -> Self {
        Shared {
            state: Mutex::new(State { queue: Queue::new(queue), phase: Phase::Open, deadline: None }),
            changed: Condvar::new(),
            stop: CancellationToken::new(),
            has_ended: watch::Sender::new(false),
            service_time: AtomicU64::new(0),
            metrics,
            outbox: Arc::new(outbox),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // every change is complete before a panic can occur
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn metrics(&self) -> &EngineMetrics {
        &self.metrics
    }

    /// The events of jobs. The thread flushes it before and after a step, before it waits for work, and when it ends.
    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(super) fn load(&self) -> EngineLoad {
        let queued = self.lock().queue.len();
        EngineLoad { queued, running: usize::try_from(self.metrics.running.get()).unwrap_or(0) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    pub(super) fn submit(&self, pending: Pending) -> Submission {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Submission::Closed;
        }
        let result = state.queue.push(pending.priority(), pending);
        self.count_waiting(&state);
        drop(state);
        match result {
            Ok(key) => {
                self.changed.notify_one();
                Submission::Queued(key)
            }
            Err(full) => Submission::Full(full),
        }
    }

    /// Takes a job out of the queue if it is there.
    fn withdraw(&self, key: QueueKey) -> Option<Pending> {
        let mut state = self.lock();
        let pending = state.queue.remove(key);
        self.count_waiting(&state);
        pending
    }

    fn count_waiting(&self, state: &State) {
        self.metrics.waiting.set(i64::try_from(state.queue.len()).unwrap_or(i64::MAX));
    }

    /// Takes at most `free` jobs for free slots. Waits for one if nothing is running.
    pub(super) fn next_work(&self, free: usize, is_running: bool) -> Work {
        self.outbox.flush();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let interrupted = state.queue.take_all(|pending| pending.interruption(now).is_some());
            let admitted: Vec<Pending> = (0..free).map_while(|_| state.queue.pop()).collect();
            let is_idle = !is_running && interrupted.is_empty() && admitted.is_empty();
            if !is_idle || state.phase != Phase::Open {
                self.count_waiting(&state);
                return Work { interrupted, admitted, is_over: is_idle && state.queue.len() == 0 };
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes every job of the queue.
    pub(super) fn drain(&self) -> Vec<Pending> {
        let mut state = self.lock();
        let all = state.queue.take_all(|_| true);
        self.count_waiting(&state);
        all
    }

    /// Takes no more jobs. At `deadline` those that are left fail; an earlier deadline replaces a later one.
    pub(super) fn close(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        let is_earlier = |deadline: &Instant| state.deadline.as_ref().is_none_or(|(time, _)| deadline < time);
        let earlier = deadline.filter(is_earlier);
        drop(state);
        // not with the lock, as a deadline that has passed calls back at once
        if let Some(time) = earlier {
            let guard = self.stop.cancel_at(time).inspect_err(|error| {
                tracing::warn!("the deadline of the shutdown is looked at between steps only: {error}");
            });
            self.lock().deadline = Some((time, guard.ok()));
        }
        self.changed.notify_one();
    }

    /// Cancelled when the deadline of the shutdown has passed.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether the deadline of the shutdown has passed.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
            || self.lock().deadline.as_ref().is_some_and(|(time, _)| *time <= Instant::now())
    }

    /// Fails the jobs that the thread leaves, and records that it has ended.
    pub(super) fn end(&self) {
        self.lock().phase = Phase::Ended;
        self.drain().into_iter().for_each(|pending| pending.fail(JobError::Ended, &self.metrics));
        self.outbox.flush();
        self.has_ended.send_replace(true);
    }

    /// Waits until the thread has ended.
    pub(super) async fn ended(&self) {
        // the sender is in `self`, so it is not dropped before
        let _ = self.has_ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Adds the time of a job in its slot to the mean.
    pub(super) fn served(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = self.service_time.load(Ordering::Relaxed);
        let mean = if mean == 0 { time } else { mean - mean / 8 + time / 8 };
        self.service_time.store(mean, Ordering::Relaxed);
    }

    /// When a job could be taken, if as many wait in front of `slots` slots.
    pub(super) fn retry_after(&self, queued: usize, slots: usize) -> Duration {
        let mean = Duration::from_micros(self.service_time.load(Ordering::Relaxed));
        let rounds = u32::try_from(queued / slots.max(1) + 1).unwrap_or(u32::MAX);
        mean.saturating_mul(rounds).clamp(RETRY_AFTER[0], RETRY_AFTER[1])
    }
}

/// Cancels a job when it is dropped.
#[derive(Debug)]
pub(super) struct Cancel {
    interrupt: CancellationToken,
    shared: Arc<Shared>,
    key: QueueKey,
}

impl Cancel {
    pub(super) fn new(interrupt: CancellationToken, shared: Arc<Shared>, key: QueueKey) -> Self {
        Cancel { interrupt, shared, key }
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.interrupt.cancel();
        if let Some(pending) = self.shared.withdraw(self.key) {
            pending.end_interrupted(&self.shared.metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EngineOptions;
    use super::*;

    fn shared() -> Shared {
        Shared::new(4, EngineMetrics::new(&EngineOptions::default(), 8), Outbox::start().unwrap())
    }

    #[test]
    fn the_advice_of_a_full_queue_follows_the_time_of_jobs() {
        let shared = shared();
        assert_eq!(shared.retry_after(4, 2), RETRY_AFTER[0]);
        for _ in 0..100 {
            shared.served(Duration::from_secs(8));
        }
        let advice = shared.retry_after(4, 2);
        assert!(advice > Duration::from_secs(20) && advice <= Duration::from_secs(24), "{advice:?}");
        assert_eq!(shared.retry_after(1000, 2), RETRY_AFTER[1]);
    }

    #[test]
    fn an_earlier_deadline_replaces_a_later_one() {
        let shared = shared();
        let now = Instant::now();
        shared.close(Some(now + Duration::from_secs(1000)));
        assert!(!shared.is_stopped() && !shared.is_open());
        shared.close(None);
        assert!(!shared.is_stopped());
        shared.close(Some(now));
        assert!(shared.is_stopped());
        shared.close(Some(now + Duration::from_secs(1000)));
        assert!(shared.is_stopped());
    }

    #[test]
    fn nothing_is_left_to_do_once_the_engine_is_closed_and_idle() {
        let shared = shared();
        shared.close(None);
        assert!(shared.next_work(2, false).is_over);
        assert!(!shared.next_work(2, true).is_over);
    }
}
