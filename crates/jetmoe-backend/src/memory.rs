//! Required and available memory.

mod control_group;

use jetmoe_artifact::{GraphRecord, WeightFormat};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Memory of a process in addition to the weights, in bytes: libraries, tokenizer, the graph, activations of a short
/// prompt.
const BASE_MEMORY: u64 = 200 << 20;

/// Memory that a loaded graph takes, in bytes. `per_byte` is what a backend takes for each byte of weights of a format in
/// the data file. At most `u64::MAX`, whatever sizes the manifest names.
pub fn estimate_memory(graph: &GraphRecord, per_byte: impl Fn(WeightFormat) -> f64) -> u64 {
    let weights = graph.stored.iter().map(|(format, bytes)| (*bytes as f64 * per_byte(*format)) as u64);
    weights.fold(BASE_MEMORY, u64::saturating_add)
}

/// More memory than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShortage {
    /// What a graph takes at least, in bytes.
    pub needed: u64,
    /// What is left, in bytes.
    pub available: u64,
}

/// Available memory in bytes: of the machine, or of the control groups of this process. Page cache that the system can drop
/// counts as available. `None` if unknown.
pub fn available_memory() -> Option<u64> {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted).ok()?;
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    machine.into_iter().chain(control_group::free_memory()).min()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jetmoe_artifact::{ArtifactFile, Precision, Profile, Task};

    use super::*;

    fn graph(stored: &[(WeightFormat, u64)]) -> GraphRecord {
        GraphRecord {
            task: Task::CausalLm,
            precision: Precision::F32,
            profile: Profile::Portable,
            opset: 21,
            optional_outputs: BTreeSet::new(),
            weights: None,
            kv_cache: None,
            stored: BTreeMap::from_iter(stored.iter().copied()),
            calibration: None,
            graph: ArtifactFile::of_content("graph", b""),
            data: ArtifactFile::of_content("data", b""),
            verification: Vec::new(),
        }
    }

    #[test]
    fn sizes_add_up_and_no_size_overflows() {
        let [first, second, ..] = WeightFormat::ALL else { panic!("two formats") };
        let estimate = |sizes: [u64; 2], per_byte: f64| {
            estimate_memory(&graph(&[(*first, sizes[0]), (*second, sizes[1])]), |_| per_byte)
        };
        assert_eq!(estimate([100, 20], 1.5), BASE_MEMORY + 180);
        assert_eq!(estimate([u64::MAX, 1], 1.0), u64::MAX);
        assert_eq!(estimate([u64::MAX, u64::MAX], 4.0), u64::MAX);
        assert_eq!(estimate([u64::MAX, u64::MAX], 0.0), BASE_MEMORY);
    }
}
