//! How much memory a graph takes in a runtime, foretold from the manifest, and how much there is.

use jetmoe_artifact::{GraphRecord, Profile, WeightFormat};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::{LoadOptions, Runtime};

/// What a process takes beside the weights: libraries, tokenizer, the graph, activations of a short prompt.
const BASE: u64 = 200 << 20;

impl LoadOptions {
    /// Memory in bytes that a graph takes while it is loaded and afterwards, whichever is more. Pages of mapped files do
    /// not count, as the system takes them back when it needs them; neither does the cache, which grows with the text.
    pub fn memory_of(&self, graph: &GraphRecord, runtime: Runtime) -> u64 {
        let weights = graph.stored.iter().map(|(storage, bytes)| {
            (*bytes as f64 * self.memory_per_byte(*storage, graph.profile, runtime)) as u64
        });
        BASE + weights.sum::<u64>()
    }

    /// Memory per byte of weights in the data file. Measured with two layers of JetMoE-8B's widths, ONNX Runtime 1.32 and
    /// tract 0.23.9, by `jetmoe run`; `docs/memory.md` says how.
    fn memory_per_byte(&self, storage: WeightFormat, profile: Profile, runtime: Runtime) -> f64 {
        if profile == Profile::Native && storage != WeightFormat::F32 {
            // our own operators read it where it is mapped; what was measured is less than what every process takes
            return 0.0;
        }
        match (runtime, storage) {
            // multiplied in another layout, which is a copy
            (Runtime::Ort, WeightFormat::F32) => 1.05,
            // multiplied in float32; or taken from the file and converted again in each step
            (Runtime::Ort, WeightFormat::F16 | WeightFormat::Bf16) if self.low_memory => 0.1,
            (Runtime::Ort, WeightFormat::F16 | WeightFormat::Bf16) => 2.35,
            // a copy in another layout, with sums of each group; DequantizeLinear is rewritten on the way there
            (Runtime::Ort, WeightFormat::Int8 | WeightFormat::Int4) => match profile {
                Profile::OnnxRuntime | Profile::Native => 1.25,
                Profile::Portable => 1.6,
            },
            (Runtime::Tract, WeightFormat::F32) => 1.25,
            (Runtime::Tract, WeightFormat::F16 | WeightFormat::Bf16) => 1.9,
            (Runtime::Tract, WeightFormat::Int8 | WeightFormat::Int4) => 1.15,
        }
    }
}

/// Memory in bytes that a process can still get: what the machine has left, or the group of processes that this one runs
/// in. `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted).ok()?;
    let machine = system.available_memory();
    let group = system.cgroup_limits().map(|limits| limits.free_memory);
    Some(group.map_or(machine, |group| group.min(machine))).filter(|bytes| *bytes > 0)
}
