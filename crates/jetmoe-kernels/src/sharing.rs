use std::sync::{Mutex, PoisonError};

use crate::Threads;

/// Does all tasks, each on whichever thread is free: a thread that the machine takes away keeps the others waiting for one
/// task only.
pub(crate) fn share<T>(
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
