//! The limits of the machine, measured: read bandwidth and peak arithmetic.

use std::thread;

use jetmoe_kernels::{ScopedThreads, roofline};
use jetmoe_rt::available_memory;
use serde::Serialize;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine and its limits with [`Machine::threads`] threads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Name of the processor.
    pub(crate) processor: String,
    /// Threads of the measurement.
    pub(crate) threads: usize,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Sequential read bandwidth from memory, beyond all caches.
    pub(crate) read_bytes_per_second: f64,
    /// Float32 operations per second in registers, where a multiply-add counts as two. At most 256-bit vectors on x86.
    pub(crate) operations_per_second: f64,
}

/// Larger than any last-level cache.
const BUFFER_BYTES: u64 = 1 << 30;
/// The best attempt counts, because other programs only make a result lower.
const ATTEMPTS: usize = 5;

impl Machine {
    /// Measures with this many threads [default: the number of processors].
    pub(crate) fn measure(threads: Option<usize>) -> anyhow::Result<Self> {
        let threads = match threads {
            Some(threads) => threads,
            None => thread::available_parallelism()?.get(),
        };
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted)?;
        let name = system.cpus().first().map_or("", |processor| processor.brand().trim());
        let (pool, buffer) = (ScopedThreads(threads), read_buffer());
        Ok(Machine {
            processor: if name.is_empty() { std::env::consts::ARCH } else { name }.to_owned(),
            threads,
            memory_bytes: system.total_memory(),
            read_bytes_per_second: best(|| roofline::read_bytes_per_second(&pool, &[&buffer])),
            operations_per_second: best(|| roofline::float32_operations_per_second(&pool)),
        })
    }
}

fn best(measure: impl Fn() -> f64) -> f64 {
    (0..ATTEMPTS).map(|_| measure()).fold(0.0, f64::max)
}

/// Memory that [`roofline::read_bytes_per_second`] reads.
fn read_buffer() -> Vec<u8> {
    // At most a quarter of the available memory.
    let bytes = available_memory().map_or(BUFFER_BYTES, |available| BUFFER_BYTES.min(available / 4));
    // Written, so that every page is resident and none is the shared zero page.
    vec![1; bytes as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_and_limits() {
        let machine = Machine::measure(Some(1)).unwrap();
        assert_eq!(machine.threads, 1);
        assert!(!machine.processor.is_empty() && machine.memory_bytes > 0, "{machine:?}");
        assert!(machine.read_bytes_per_second > 0.0 && machine.operations_per_second > 0.0, "{machine:?}");
    }
}
