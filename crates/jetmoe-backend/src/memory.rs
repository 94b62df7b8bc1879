//! Required and available memory.

mod control_group;

use jetmoe_artifact::{GraphRecord, WeightFormat};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Memory of a process in addition to the weights, in bytes: libraries, tokenizer, the graph, activations of a short
/// prompt.
const BASE_MEMORY: u64 = 200 << 20;

/// Memory that a loaded graph takes, in bytes. `per_byte` is what a backend takes for each byte of weights of a format in
/// the data file.
pub fn estimate_memory(graph: &GraphRecord, per_byte: impl Fn(WeightFormat) -> f64) -> u64 {
    let weights = graph.stored.iter().map(|(format, bytes)| (*bytes as f64 * per_byte(*format)) as u64);
    BASE_MEMORY + weights.sum::<u64>()
}

/// Available memory in bytes: of the machine, or of the control groups of this process. Page cache that the system can drop
/// counts as available. `None` if unknown.
pub fn available_memory() -> Option<u64> {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted).ok()?;
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    machine.into_iter().chain(control_group::free_memory()).min()
}
