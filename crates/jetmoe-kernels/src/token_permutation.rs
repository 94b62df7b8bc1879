//! Groups the rows of a batch by the experts they chose.

use crate::packed_input::{Form, Tile};
use crate::{Error, Isa, Result};

/// The assignments of rows to experts, sorted by expert: the first step of every product of experts.
///
/// An *assignment* is one row's use of one expert: assignment `row * k + s` is the row's s-th choice.
#[derive(Debug)]
pub struct TokenPermutation {
    /// Where the assignments of each expert begin, and the end of the last: `[experts + 1]`.
    expert_offsets: Vec<usize>,
    /// All assignments, sorted by expert and ascending within each expert.
    assignments: Vec<usize>,
}

impl TokenPermutation {
    /// Sorts the choices of all rows, `[rows, k]`, by a counting sort over the experts.
    ///
    /// # Errors
    /// An expert that is out of range.
    pub fn new(chosen: &[i64], k: usize, experts: usize) -> Result<Self> {
        // Count the assignments of each expert, one place to the right of its own.
        let mut expert_offsets = vec![0; experts + 1];
        for (assignment, expert) in chosen.iter().enumerate() {
            let index = usize::try_from(*expert).ok().filter(|index| *index < experts);
            let row = assignment / k.max(1);
            let index = index.ok_or(Error::ExpertOutOfRange { row, found: *expert, experts })?;
            expert_offsets[index + 1] += 1;
        }
        // The prefix sums of the counts are the offsets.
        for expert in 0..experts {
            expert_offsets[expert + 1] += expert_offsets[expert];
        }
        // Put each assignment at the next free place of its expert.
        let mut next_place = expert_offsets.clone();
        let mut assignments = vec![0; chosen.len()];
        for (assignment, expert) in chosen.iter().enumerate() {
            let place = &mut next_place[*expert as usize];
            assignments[*place] = assignment;
            *place += 1;
        }
        Ok(TokenPermutation { expert_offsets, assignments })
    }

    /// All rows for the only expert.
    pub(crate) fn identity(rows: usize) -> Self {
        TokenPermutation { expert_offsets: vec![0, rows], assignments: (0..rows).collect() }
    }

    /// All assignments, sorted by expert.
    pub fn assignments(&self) -> &[usize] {
        &self.assignments
    }

    /// Where the products of each assignment are.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = vec![Place::default(); self.assignments.len()];
        for (_, first, rows) in self.nonempty_experts() {
            for (row, assignment) in self.assignments[first..][..rows].iter().enumerate() {
                places[*assignment] = Place { first, rows, row };
            }
        }
        places
    }

    /// The experts that have assignments, each with the position of its first one and their number.
    pub fn nonempty_experts(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let ranges = self.expert_offsets.windows(2).enumerate();
        ranges
            .filter(|(_, pair)| pair[1] > pair[0])
            .map(|(expert, pair)| (expert, pair[0], pair[1] - pair[0]))
    }

    /// The assignments of each expert, in tiles.
    pub(crate) fn tiles(&self, isa: Isa) -> Vec<Tile> {
        let tiles_of = |(expert, first, count): (usize, usize, usize)| {
            let form = Form::of(isa, count);
            let most = form.rows_of_tile(count);
            let tile =
                move |start| Tile { expert, first: first + start, rows: most.min(count - start), form };
            (0..count).step_by(most).map(tile)
        };
        self.nonempty_experts().flat_map(tiles_of).collect()
    }
}

/// An assignment among those of its expert.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// Position of the expert's first assignment among those of all experts.
    pub(crate) first: usize,
    /// Number of the expert's assignments.
    pub(crate) rows: usize,
    /// Position of this one among them.
    pub(crate) row: usize,
}
