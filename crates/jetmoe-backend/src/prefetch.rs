//! Weights that memory does not hold as a whole: an operator requests what it reads of them before it computes, and what was used
//! least recently is given up.
//!
//! The custom operators read their weights from a mapped file. A page that is not in memory stops the thread that reads it.
//! The system then reads it with its neighbours, some of which belong to experts that no token selected, and
//! removes pages that the next token needs. An operator that has its experts can name all of their pages at
//! once instead: the disk then has as many requests as it can work on, and reads nothing else.

mod resident;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use jetmoe_format::{PANEL_ROWS, PackedWeight, Panel};
use jetmoe_kernels::Threads;

use crate::available_memory;
use resident::Resident;

/// Requests for the weights of one graph, which are in a mapped file.
#[derive(Debug)]
pub struct Prefetch {
    /// Bytes of weights that stay in memory.
    budget: usize,
    resident: Mutex<Resident>,
}

/// Bytes of addresses.
pub(crate) type AddressRange = Range<usize>;

/// What an operator reads of its weights in one step.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// In the order in which it is read.
    ranges: Vec<AddressRange>,
    /// The same by matrix, for those that are read again.
    matrices: Vec<Matrix>,
}

/// The matrix of an expert.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Matrix {
    /// Its parts in the tensors of the weight: codes, scales, zero points.
    parts: Vec<AddressRange>,
    order: ReadOrder,
}

/// When a matrix is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadOrder {
    /// The sooner, the more recently it was read: the experts of one token, and what every token reads.
    Recent,
    /// After all others: a prompt reads all experts of all layers in turn.
    InTurn,
}

/// Bytes of elements after which the matrix of the next expert is requested: a product reads the same panels of all experts
/// before the next ones.
const BYTES_PER_TURN: usize = 512 << 10;

impl Prefetch {
    /// For weights of a mapped file of this size. `None` if they fit in the available memory, where each page is read once, and on
    /// other systems than Linux.
    pub fn for_weights(bytes: u64) -> Option<Arc<Self>> {
        if cfg!(not(target_os = "linux")) {
            return None;
        }
        let available = available_memory()?;
        let prefetch = Self::in_memory(bytes, available)?;
        tracing::warn!(
            "the weights take {} MiB and memory has {} MiB for them, so that experts are read from the disk in every step",
            bytes >> 20,
            prefetch.budget >> 20
        );
        Some(Arc::new(prefetch))
    }

    /// An eighth of the memory is left to the cache and to activations.
    fn in_memory(bytes: u64, available: u64) -> Option<Self> {
        let budget = available - available / 8;
        let resident = Mutex::default();
        (bytes > budget).then(|| Prefetch { budget: usize::try_from(budget).unwrap_or(usize::MAX), resident })
    }

    /// Requests what an operator reads, from all threads, and gives up other weights if that is too much. Returns before it has been
    /// read.
    pub(crate) fn request(&self, threads: &dyn Threads, reads: Reads) {
        let mut resident = self.resident.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = resident.admit(reads.matrices, self.budget);
        drop(resident);
        #[cfg(target_os = "linux")]
        linux::advise(threads, &reads.ranges, &given_up, self.budget / 2);
        #[cfg(not(target_os = "linux"))]
        let _ = (threads, reads.ranges, given_up);
    }
}

impl Reads {
    /// The matrices of experts, in the order in which a product reads them: panel by panel, each of all experts. Experts that the
    /// weight does not have are left out.
    pub(crate) fn matrices(weight: &PackedWeight<'_>, experts: &[i64]) -> Self {
        let layout = weight.layout();
        let in_range = |expert: &i64| usize::try_from(*expert).ok().filter(|expert| *expert < layout.experts);
        let experts: BTreeSet<usize> = experts.iter().filter_map(in_range).collect();
        let step = (BYTES_PER_TURN / layout.panel_bytes()).max(1);
        let firsts = (0..layout.panels()).step_by(step);
        let turns = firsts.map(|first| first..(first + step).min(layout.panels()));
        let parts = turns.flat_map(|turn| experts.iter().map(move |expert| (*expert, turn.clone())));
        let ranges = parts.flat_map(|(expert, panels)| tensors(weight.panels(expert, panels))).collect();
        let order = match experts.len() {
            count if count > 1 && count == layout.experts => ReadOrder::InTurn,
            _ => ReadOrder::Recent,
        };
        let matrix =
            |expert| Matrix { parts: tensors(weight.panels(expert, 0..layout.panels())).collect(), order };
        Reads { ranges, matrices: experts.into_iter().map(matrix).collect() }
    }

    /// The panels of rows of a weight with one matrix. Rows that it does not have are left out.
    pub(crate) fn rows(weight: &PackedWeight<'_>, rows: &[i64]) -> Self {
        let panel = |row: &i64| usize::try_from(*row).ok().map(|row| row / PANEL_ROWS);
        let panels: BTreeSet<usize> = rows.iter().filter_map(panel).collect();
        let panels = panels.into_iter().filter(|panel| *panel < weight.layout().panels());
        Reads {
            ranges: panels.flat_map(|panel| tensors(weight.panel(0, panel))).collect(),
            ..Reads::default()
        }
    }

    /// These, followed by others.
    pub(crate) fn followed_by(mut self, mut others: Reads) -> Self {
        self.ranges.append(&mut others.ranges);
        self.matrices.append(&mut others.matrices);
        self
    }
}

/// The parts of consecutive panels in each tensor of the weight.
fn tensors<S>(panels: Panel<'_, S>) -> impl Iterator<Item = AddressRange> {
    [addresses(panels.codes), addresses(panels.scales), addresses(panels.zero_points.unwrap_or_default())]
        .into_iter()
        .filter(|range| !range.is_empty())
}

fn addresses<T>(elements: &[T]) -> AddressRange {
    let Range { start, end } = elements.as_ptr_range();
    start.addr()..end.addr()
}

#[cfg(target_os = "linux")]
mod linux;
#[cfg(test)]
mod tests;
