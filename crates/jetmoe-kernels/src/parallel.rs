//! Distributes tasks over the caller's threads.

use std::sync::{Mutex, PoisonError};

use crate::Threads;
use crate::packed_input::Tile;

/// Rows of a task that computes little for each: enough to be worth waking a thread.
pub(crate) const ROWS_PER_TASK: usize = 8;

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

/// Calls `work` for each of a task's `panels` and each tile, with the index of the panel in the task and the place of the tile. The
/// panels of one expert come in their order, before those of the next expert, so that each is read once.
pub(crate) fn for_each_tile(tiles: &[Tile], panels: usize, mut work: impl FnMut(usize, usize, Tile)) {
    let mut first = 0;
    for of_expert in tiles.chunk_by(|a, b| a.expert == b.expert) {
        for panel in 0..panels {
            for (index, tile) in of_expert.iter().enumerate() {
                work(panel, first + index, *tile);
            }
        }
        first += of_expert.len();
    }
}
