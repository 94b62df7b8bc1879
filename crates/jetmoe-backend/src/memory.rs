//! Memory that a backend takes and that the machine has.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What a process takes in addition to the weights, in bytes: libraries, tokenizer, the graph, activations of a short
/// prompt.
pub const BASE_MEMORY: u64 = 200 << 20;

/// Memory in bytes that a process can still get: what the machine has left, or the group of processes that this one runs
/// in. `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted).ok()?;
    let machine = system.available_memory();
    let group = system.cgroup_limits().map(|limits| limits.free_memory);
    Some(group.map_or(machine, |group| group.min(machine))).filter(|bytes| *bytes > 0)
}
