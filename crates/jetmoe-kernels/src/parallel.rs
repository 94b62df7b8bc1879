//! Distributes tasks over the caller's threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::Threads;
use crate::packed_input::Tile;

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

/// How many consecutive panels a task takes. A thread then reads a long part of the weight, of which a panel is prefetched while
/// the one before it is multiplied; and there are enough tasks that no thread waits long for the last one.
pub(crate) fn panels_per_task(panels: usize, threads: &dyn Threads) -> usize {
    const TASKS_PER_THREAD: usize = 8;
    const MOST: usize = 16;
    (panels / (TASKS_PER_THREAD * threads.count())).clamp(1, MOST)
}

/// The tiles of each expert, as ranges of all tiles. A task multiplies its panels with those of one expert before it goes on to
/// the next, so that it reads each expert's panels in their order, once.
pub(crate) fn tiles_by_expert(tiles: &[Tile]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    tiles.chunk_by(|a, b| a.expert == b.expert).map(move |tiles| {
        let first = end;
        end += tiles.len();
        first..end
    })
}
