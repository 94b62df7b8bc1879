//! Which matrices of a graph are in memory, and which of them are given up first.

use std::collections::HashMap;

use super::{AddressRange, Matrix, ReadOrder};

/// The matrices that were requested and not given up.
#[derive(Debug, Default)]
pub(super) struct Resident {
    /// By the address of their first byte.
    matrices: HashMap<usize, Held>,
    bytes: usize,
    /// Requests so far.
    clock: i64,
}

#[derive(Debug)]
struct Held {
    matrix: Matrix,
    /// The least is given up first.
    rank: i64,
    /// The request that named it last.
    requested: i64,
}

impl Resident {
    /// Adds matrices of one request, and removes others until all that remain have at most `budget` bytes. Returns what was
    /// removed; nothing of this request is.
    ///
    /// The least recent matrix is removed first, except that those of a prompt are removed before all others, and the most recent
    /// of them first: it is the one that is read again last.
    pub(super) fn admit(&mut self, matrices: Vec<Matrix>, budget: usize) -> Vec<AddressRange> {
        self.clock += 1;
        for matrix in matrices {
            let Some(first) = matrix.parts.first().map(|part| part.start) else { continue };
            let rank = match matrix.order {
                ReadOrder::Recent => self.clock,
                ReadOrder::InTurn => -self.clock,
            };
            let held = Held { rank, requested: self.clock, matrix };
            self.bytes += held.bytes();
            if let Some(before) = self.matrices.insert(first, held) {
                self.bytes -= before.bytes();
            }
        }
        let mut removed = Vec::new();
        while self.bytes > budget {
            let others = self.matrices.iter().filter(|(_, held)| held.requested != self.clock);
            let least =
                others.min_by_key(|(address, held)| (held.rank, **address)).map(|(address, _)| *address);
            let Some(held) = least.and_then(|address| self.matrices.remove(&address)) else { break };
            self.bytes -= held.bytes();
            removed.extend(held.matrix.parts);
        }
        removed
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.matrix.parts.iter().map(|part| part.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of 100 bytes in two tensors.
    fn matrix(index: usize, order: ReadOrder) -> Matrix {
        let codes = 1000 + index * 90;
        let scales = 5000 + index * 10;
        Matrix { parts: vec![codes..codes + 90, scales..scales + 10], order }
    }

    /// Requests one matrix after the other in a budget of 3, and returns which are given up at each.
    fn request_each(resident: &mut Resident, indices: &[usize], order: ReadOrder) -> Vec<Vec<usize>> {
        let admit = |index: &usize| {
            let removed = resident.admit(vec![matrix(*index, order)], 300);
            let codes = removed.iter().filter(|part| part.len() == 90);
            let indices: Vec<usize> = codes.map(|part| (part.start - 1000) / 90).collect();
            let expected: Vec<AddressRange> =
                indices.iter().flat_map(|index| matrix(*index, order).parts).collect();
            assert_eq!(removed, expected, "all parts of a matrix");
            indices
        };
        indices.iter().map(admit).collect()
    }

    const NONE: Vec<usize> = Vec::new();

    #[test]
    fn the_least_recent_matrix_is_given_up_first() {
        let mut resident = Resident::default();
        let given_up = request_each(&mut resident, &[0, 1, 2, 0, 3, 1, 0, 0], ReadOrder::Recent);
        assert_eq!(given_up, [NONE, NONE, NONE, NONE, vec![1], vec![2], NONE, NONE]);
        assert_eq!(resident.bytes, 300);
    }

    #[test]
    fn a_prompt_gives_up_what_it_read_last() {
        let mut resident = Resident::default();
        let turn: Vec<usize> = (0..6).collect();
        let first = request_each(&mut resident, &turn, ReadOrder::InTurn);
        assert_eq!(first, [NONE, NONE, NONE, vec![2], vec![3], vec![4]]);
        // the next chunk of the prompt finds 0, 1 and 5
        let second = request_each(&mut resident, &turn, ReadOrder::InTurn);
        assert_eq!(second, [NONE, NONE, vec![1], vec![2], vec![3], NONE]);
        // a token after it gives up what only the prompt has read first
        let token = request_each(&mut resident, &[10, 11, 12, 13], ReadOrder::Recent);
        assert_eq!(token, [[5], [4], [0], [10]]);
    }

    #[test]
    fn nothing_of_a_request_is_given_up_for_it() {
        let mut resident = Resident::default();
        let all = |first: usize| (first..first + 5).map(|index| matrix(index, ReadOrder::InTurn)).collect();
        assert_eq!(resident.admit(all(0), 300), []);
        assert_eq!(resident.bytes, 500);
        assert_eq!(resident.admit(all(0), 300), [], "again");
        assert_eq!(resident.admit(all(5), 300).len(), 10, "both parts of the five before");
        assert_eq!(resident.admit(Vec::new(), 300).len(), 4);
        assert_eq!(resident.bytes, 300);
    }
}
