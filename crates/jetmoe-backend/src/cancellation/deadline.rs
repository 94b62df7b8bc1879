//! Cancellation at a point in time. One thread of the process waits for all deadlines; it starts with the first one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fmt, io, thread};

use super::CancellationToken;

static TIMER: LazyLock<Timer> = LazyLock::new(Timer::default);

#[derive(Default)]
struct Timer {
    deadlines: Mutex<Deadlines>,
    /// A deadline was added.
    added: Condvar,
}

#[derive(Default)]
struct Deadlines {
    /// In the order of their time; the number tells equal times apart.
    tokens: BTreeMap<Key, CancellationToken>,
    next_id: u64,
    has_thread: bool,
}

type Key = (Instant, u64);

/// A deadline of a token, see [`CancellationToken::cancel_at`].
#[must_use = "dropping the guard removes the deadline"]
pub struct DeadlineGuard {
    /// `None` if it had passed already.
    key: Option<Key>,
}

impl fmt::Debug for DeadlineGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineGuard").finish_non_exhaustive()
    }
}

impl Drop for DeadlineGuard {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            TIMER.lock().tokens.remove(key);
        }
    }
}

impl CancellationToken {
    /// Cancels the token at `deadline`, unless the guard is dropped before; at once, in this thread, if it has passed. One
    /// thread of the process serves all deadlines and calls the callbacks of [`CancellationToken::on_cancel`]. It is started by
    /// the first deadline and never ends.
    ///
    /// Dropping the guard does not wait: a cancellation that has begun may end after it.
    ///
    /// # Errors
    /// The operating system refuses to start the thread.
    pub fn cancel_at(&self, deadline: Instant) -> io::Result<DeadlineGuard> {
        if deadline <= Instant::now() {
            self.cancel();
            return Ok(DeadlineGuard { key: None });
        }
        let mut deadlines = TIMER.lock();
        if !deadlines.has_thread {
            thread::Builder::new().name("jetmoe-deadlines".to_owned()).spawn(|| TIMER.run())?;
            deadlines.has_thread = true;
        }
        let key = (deadline, deadlines.next_id);
        deadlines.next_id += 1;
        deadlines.tokens.insert(key, self.clone());
        TIMER.added.notify_one();
        Ok(DeadlineGuard { key: Some(key) })
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Deadlines> {
        // no foreign code runs while the lock is held
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut deadlines = self.lock();
        loop {
            let now = Instant::now();
            let next = deadlines.tokens.first_key_value().map(|((time, _), _)| *time);
            match next {
                None => deadlines = self.added.wait(deadlines).unwrap_or_else(PoisonError::into_inner),
                Some(time) if time > now => {
                    let waited = self.added.wait_timeout(deadlines, time - now);
                    deadlines = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let passed = deadlines.tokens.pop_first();
                    drop(deadlines);
                    if let Some((_, token)) = passed {
                        // a callback that panics has reported it; the other deadlines remain
                        let _ = catch_unwind(AssertUnwindSafe(|| token.cancel()));
                    }
                    deadlines = self.lock();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_dropped_guard_removes_its_deadline_and_no_other() {
        let [first, second] = [(); 2].map(|()| CancellationToken::new());
        let time = Instant::now() + Duration::from_secs(100_000);
        let first = first.cancel_at(time).unwrap();
        let second = second.cancel_at(time).unwrap();
        let is_set = |key: Option<Key>| TIMER.lock().tokens.contains_key(&key.unwrap());
        let keys = [first.key, second.key];
        assert_eq!(keys.map(is_set), [true, true]);
        drop(first);
        assert_eq!(keys.map(is_set), [false, true]);
        drop(second);
        assert_eq!(keys.map(is_set), [false, false]);
    }
}
