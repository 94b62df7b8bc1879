//! Cancellation of a step from any thread.

mod deadline;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::deadline::DeadlineGuard;

/// A request to stop, shared by its clones. It cannot be taken back; use a new token for each piece of work.
///
/// A backend either polls [`CancellationToken::is_cancelled`], which is one atomic load, or registers a callback with
/// [`CancellationToken::on_cancel`].
#[derive(Clone, Default)]
pub struct CancellationToken {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Set while `callbacks` is locked, so that no callback is registered unnoticed.
    is_cancelled: AtomicBool,
    callbacks: Mutex<Callbacks>,
}

#[derive(Default)]
struct Callbacks {
    /// In the order of registration.
    registered: BTreeMap<u64, Callback>,
    next_id: u64,
}

type Callback = Box<dyn FnOnce() + Send>;

impl CancellationToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the token and its clones, and calls the registered callbacks in this thread, in the order of registration.
    /// Does nothing if the token is cancelled already. May be called from any thread, also from a callback.
    pub fn cancel(&self) {
        let callbacks = {
            let mut callbacks = self.state.lock();
            self.state.is_cancelled.store(true, Ordering::Release);
            std::mem::take(&mut callbacks.registered)
        };
        // outside of the lock, so that a callback may use the token
        callbacks.into_values().for_each(|callback| callback());
    }

    /// Whether the token is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.state.is_cancelled.load(Ordering::Acquire)
    }

    /// A guard that cancels the token when it is dropped: as part of a response it ends the work when the client leaves.
    pub fn drop_guard(&self) -> DropGuard {
        DropGuard { token: self.clone() }
    }

    /// Registers a function that [`CancellationToken::cancel`] calls once, in its thread. If the token is cancelled already,
    /// calls it at once, in this thread. Dropping the guard deregisters the function.
    ///
    /// Dropping the guard does not wait: a call that has begun in another thread may end after it. So the function must own
    /// what it uses. It should return quickly and must not panic.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) -> CancellationGuard {
        let mut callbacks = self.state.lock();
        if self.is_cancelled() {
            drop(callbacks);
            callback();
            return CancellationGuard { registration: None };
        }
        let id = callbacks.next_id;
        callbacks.next_id += 1;
        callbacks.registered.insert(id, Box::new(callback));
        CancellationGuard { registration: Some((self.state.clone(), id)) }
    }
}

/// Cancels its token when it is dropped, see [`CancellationToken::drop_guard`].
#[derive(Debug)]
#[must_use = "dropping the guard cancels the token"]
pub struct DropGuard {
    token: CancellationToken,
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Callbacks> {
        // no foreign code runs while the lock is held
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered callback, see [`CancellationToken::on_cancel`].
#[must_use = "dropping the guard deregisters the callback"]
pub struct CancellationGuard {
    /// None if the callback was called at once.
    registration: Option<(Arc<State>, u64)>,
}

impl Drop for CancellationGuard {
    fn drop(&mut self) {
        let Some((state, id)) = &self.registration else { return };
        let callback = state.lock().registered.remove(id);
        // outside of the lock, as the callback may own a guard of this token
        drop(callback);
    }
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationToken")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CancellationGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
