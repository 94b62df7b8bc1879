//! Which rows each expert works on.

use crate::{Error, Result};

/// Rows by expert: what every product of experts begins with. A *slot* is one row's use of one expert: slot `row * per_row + s` belongs to the row's s-th choice.
#[derive(Debug)]
pub struct Routes {
    /// Where the slots of each expert begin, and the end of the last.
    starts: Vec<usize>,
    /// All slots, by expert, ascending within one.
    slots: Vec<usize>,
}

impl Routes {
    /// Counts and sorts the choices of all rows, `[rows, per_row]`.
    ///
    /// # Errors
    /// A choice that is no expert.
    pub fn new(chosen: &[i64], per_row: usize, experts: usize) -> Result<Self> {
        let mut starts = vec![0; experts + 1];
        for (slot, expert) in chosen.iter().enumerate() {
            let index = usize::try_from(*expert).ok().filter(|index| *index < experts);
            let row = slot / per_row.max(1);
            starts[index.ok_or(Error::NoSuchExpert { row, found: *expert, experts })? + 1] += 1;
        }
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let mut slots = vec![0; chosen.len()];
        for (slot, expert) in chosen.iter().enumerate() {
            let place = &mut next[*expert as usize];
            slots[*place] = slot;
            *place += 1;
        }
        Ok(Routes { starts, slots })
    }

    /// Every row for the only expert.
    pub(crate) fn dense(rows: usize) -> Self {
        Routes { starts: vec![0, rows], slots: (0..rows).collect() }
    }

    /// All slots, by expert.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Where each slot stands in [`Routes::slots`].
    pub(crate) fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.slots.len()];
        for (place, slot) in self.slots.iter().enumerate() {
            places[*slot] = place;
        }
        places
    }

    /// The experts that have rows, with the first of their places in [`Routes::slots`] and their number.
    pub fn busy(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let counts = self.starts.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
        counts
            .enumerate()
            .filter(|(_, (_, count))| *count > 0)
            .map(|(expert, (first, count))| (expert, first, count))
    }
}
