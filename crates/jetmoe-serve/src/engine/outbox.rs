//! Events on their way to the jobs.
//!
//! Whoever waits for an event is woken by another thread than the one that makes steps: waking the readers of 16 events takes longer
//! than choosing their tokens, and what the readers do then would delay the next step.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use jetmoe_rt::CancellationToken;
use tokio::sync::mpsc::UnboundedSender;

use super::JobEvent;

/// An event, and the job that it is for.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) event: JobEvent,
    pub(super) events: UnboundedSender<JobEvent>,
    /// Cancelled if no one reads the event.
    pub(super) interrupt: CancellationToken,
}

/// Events that are delivered together, by a thread of its own, in the order in which they were put in. Those that are left are
/// delivered when it is dropped.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Vec<Delivery>>,
    thread: Sender<Vec<Delivery>>,
}

impl Outbox {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start() -> io::Result<Outbox> {
        let (thread, batches) = mpsc::channel();
        thread::Builder::new().name("jetmoe-events".to_owned()).spawn(move || deliver(&batches))?;
        Ok(Outbox { waiting: Mutex::default(), thread })
    }

    /// Adds an event. It waits for [`Outbox::flush`].
    pub(super) fn put(&self, delivery: Delivery) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }

    /// Delivers the events that wait.
    pub(super) fn flush(&self) {
        // with the lock, so that two threads keep the order
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_empty() {
            // the thread ends after this sender only
            let _ = self.thread.send(std::mem::take(&mut waiting));
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.flush();
    }
}

fn deliver(batches: &Receiver<Vec<Delivery>>) {
    for Delivery { event, events, interrupt } in batches.iter().flatten() {
        if events.send(event).is_err() {
            interrupt.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::engine::JobError;

    fn delivery(events: &UnboundedSender<JobEvent>, cached_tokens: usize) -> Delivery {
        let event = JobEvent::Started { cached_tokens, queued: Duration::ZERO };
        Delivery { event, events: events.clone(), interrupt: CancellationToken::new() }
    }

    #[test]
    fn events_keep_their_order_and_those_that_are_left_are_delivered() {
        let outbox = Outbox::start().unwrap();
        let (events, mut received) = unbounded_channel();
        for number in 0..10 {
            outbox.put(delivery(&events, number));
            if number % 3 == 0 {
                outbox.flush();
            }
        }
        let event = JobEvent::Failed(Arc::new(JobError::Ended));
        outbox.put(Delivery { event, ..delivery(&events, 0) });
        drop((outbox, events));
        for number in 0..10 {
            let event = received.blocking_recv();
            assert!(
                matches!(event, Some(JobEvent::Started { cached_tokens, .. }) if cached_tokens == number),
                "{number}: {event:?}"
            );
        }
        assert!(matches!(received.blocking_recv(), Some(JobEvent::Failed(_))));
        assert!(received.blocking_recv().is_none());
    }

    #[test]
    fn a_job_is_interrupted_if_no_one_reads_its_events() {
        let outbox = Outbox::start().unwrap();
        let (events, received) = unbounded_channel();
        drop(received);
        let delivery = delivery(&events, 0);
        let interrupt = delivery.interrupt.clone();
        outbox.put(delivery);
        assert!(!interrupt.is_cancelled());
        outbox.flush();
        let start = Instant::now();
        while !interrupt.is_cancelled() {
            assert!(start.elapsed() < Duration::from_secs(20), "it is never cancelled");
            thread::yield_now();
        }
    }
}
