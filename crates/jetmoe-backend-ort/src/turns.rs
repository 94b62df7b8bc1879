//! Sessions of one model take turns in ONNX Runtime, in the order in which they ask.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jetmoe_backend::CancellationToken;

/// A value that one thread at a time uses. Unlike a mutex it is fair: a session that runs chunk after chunk does not keep
/// others waiting for all of them. And a cancelled thread stops waiting.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    queue: Arc<Queue>,
    /// Locked by the first of the queue only.
    value: Mutex<T>,
}

#[derive(Debug, Default)]
struct Queue {
    tickets: Mutex<Tickets>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Tickets {
    /// The first one has its turn.
    waiting: VecDeque<u64>,
    next: u64,
}

/// The turn of a thread, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a, T> {
    // dropped before the ticket
    value: MutexGuard<'a, T>,
    _ticket: Ticket<'a>,
}

/// A place in the queue, which is left when it is dropped.
#[derive(Debug)]
struct Ticket<'a> {
    queue: &'a Queue,
    number: u64,
}

impl<T> Turns<T> {
    pub(crate) fn new(value: T) -> Self {
        Turns { queue: Arc::default(), value: Mutex::new(value) }
    }

    /// Waits for a turn; `None` if the token is cancelled before it comes.
    pub(crate) fn wait(&self, cancellation: &CancellationToken) -> Option<Turn<'_, T>> {
        let queue = self.queue.clone();
        let _guard = cancellation.on_cancel(move || {
            // a thread that has read the token before holds the lock until it waits
            drop(queue.lock());
            queue.changed.notify_all();
        });
        let ticket = self.queue.draw();
        ticket.wait_until(|| cancellation.is_cancelled());
        (!cancellation.is_cancelled()).then(|| self.begin(ticket))
    }

    /// Waits for a turn, however long that takes.
    pub(crate) fn wait_for_ever(&self) -> Turn<'_, T> {
        let ticket = self.queue.draw();
        ticket.wait_until(|| false);
        self.begin(ticket)
    }

    fn begin<'a>(&'a self, ticket: Ticket<'a>) -> Turn<'a, T> {
        // a panic during an earlier turn does not concern this one
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { value, _ticket: ticket }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> Ticket<'_> {
        let mut tickets = self.lock();
        let number = tickets.next;
        tickets.next += 1;
        tickets.waiting.push_back(number);
        Ticket { queue: self, number }
    }
}

impl Ticket<'_> {
    /// Waits until this is the first ticket, or until `stop` returns true after a change.
    fn wait_until(&self, stop: impl Fn() -> bool) {
        let is_waiting = |tickets: &mut Tickets| tickets.waiting.front() != Some(&self.number) && !stop();
        drop(self.queue.changed.wait_while(self.queue.lock(), is_waiting));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.lock().waiting.retain(|number| *number != self.number);
        self.queue.changed.notify_all();
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests;
