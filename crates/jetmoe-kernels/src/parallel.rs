//! Distributes tasks over the caller's threads.

use std::ops::Range;
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

/// Consecutive panels of one expert, or consecutive blocks of its rows, and what is to be filled for them.
pub(crate) struct Task<'t, 'd, T> {
    /// All tiles of the expert, at least one.
    pub(crate) tiles: &'t [Tile],
    /// The first panel.
    pub(crate) first: usize,
    /// What belongs to the panels, in their order.
    pub(crate) targets: &'d mut [T],
}

/// Splits what belongs to `panels` of each expert, expert by expert and panel by panel, into tasks of `per_task` panels.
///
/// The tasks of one expert come one after the other, so that its rows stay in the second-level cache of a thread.
pub(crate) fn tasks<'t, 'd, T>(
    tiles: &'t [Tile],
    mut targets: &'d mut [T],
    panels: usize,
    per_task: usize,
    targets_per_panel: impl Fn(&[Tile]) -> usize,
) -> std::vec::IntoIter<Task<'t, 'd, T>> {
    let mut tasks = Vec::new();
    for tiles in by_expert(tiles) {
        let per_panel = targets_per_panel(tiles);
        let of_expert = take(&mut targets, panels * per_panel);
        let chunks = of_expert.chunks_mut(per_task * per_panel).enumerate();
        tasks.extend(chunks.map(|(index, targets)| Task { tiles, first: index * per_task, targets }));
    }
    tasks.into_iter()
}

/// The tiles of each expert.
pub(crate) fn by_expert(tiles: &[Tile]) -> impl Iterator<Item = &[Tile]> {
    tiles.chunk_by(|a, b| a.expert == b.expert)
}

/// The rows of some tiles.
pub(crate) fn rows(tiles: &[Tile]) -> usize {
    tiles.iter().map(|tile| tile.rows).sum()
}

/// Splits off the first elements.
pub(crate) fn take<'a, T>(slice: &mut &'a mut [T], length: usize) -> &'a mut [T] {
    let (first, rest) = std::mem::take(slice).split_at_mut(length);
    *slice = rest;
    first
}

/// How many consecutive panels a task takes. A thread then reads a long part of the weight, of which a panel is prefetched while
/// the one before it is multiplied; and there are enough tasks that no thread waits long for the last one.
pub(crate) fn panels_per_task(panels: usize, tiles: &[Tile], threads: &dyn Threads) -> usize {
    const TASKS_PER_THREAD: usize = 8;
    const MOST: usize = 16;
    (panels * by_expert(tiles).count() / (TASKS_PER_THREAD * threads.count())).clamp(1, MOST)
}

/// Calls `work` for some consecutive panels of a task and each tile of the expert, with the place of the tile. The panels come in their
/// order, so that each is read once.
pub(crate) fn for_each_tile(tiles: &[Tile], panels: usize, mut work: impl FnMut(Range<usize>, usize, Tile)) {
    let at_once = tiles.first().map_or(1, |tile| tile.form.panels_at_once());
    for begin in (0..panels).step_by(at_once) {
        for (place, tile) in tiles.iter().enumerate() {
            work(begin..panels.min(begin + at_once), place, *tile);
        }
    }
}
