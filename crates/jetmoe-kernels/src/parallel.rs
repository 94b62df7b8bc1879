//! Distributes tasks over the caller's threads.

use std::sync::{Mutex, PoisonError};

use crate::Threads;

/// Runs all tasks, each on the next free thread, so that a thread that the system suspends delays one task only.
pub(crate) fn parallel_for_each<T>(
    threads: &dyn Threads,
    tasks: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) {
    if threads.count() == 1 || tasks.len() <= 1 {
        return tasks.for_each(work);
    }
    let queue = Mutex::new(tasks);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    threads.run(&|_| {
        while let Some(task) = next() {
            work(task);
        }
    });
}
