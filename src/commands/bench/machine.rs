//! What the machine can do: bytes read and arithmetic done per second, measured here and now.

use std::thread;

use jetmoe_kernels::{ScopedThreads, roofline};
use jetmoe_rt::available_memory;
use serde::Serialize;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine, and what it was measured to do with [`Machine::threads`] threads at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// The processor's name for itself.
    pub(crate) processor: String,
    /// Threads that measured.
    pub(crate) threads: usize,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Bytes per second, read one after the other from more memory than any cache holds.
    pub(crate) read_bytes_per_second: f64,
    /// Float32 operations per second in registers; a multiply-add is two. On x86 with vectors of at most 256 bits.
    pub(crate) operations_per_second: f64,
}

/// Larger than the last level of any processor's cache.
const BUFFER_BYTES: u64 = 1 << 30;
const ATTEMPTS: usize = 5;

impl Machine {
    /// Measures with so many threads, by default as many as the system says there are processors.
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

/// The best of several attempts: other programs only make it lower.
fn best(measure: impl Fn() -> f64) -> f64 {
    (0..ATTEMPTS).map(|_| measure()).fold(0.0, f64::max)
}

/// Memory that [`roofline::read_bytes_per_second`] reads.
fn read_buffer() -> Vec<u8> {
    // A machine that is nearly full gives up a quarter of what is left.
    let bytes = available_memory().map_or(BUFFER_BYTES, |available| BUFFER_BYTES.min(available / 4));
    // Written, so that every page exists and is not the shared page of zeros.
    vec![1; bytes as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_is_and_does_something() {
        let machine = Machine::measure(Some(1)).unwrap();
        assert_eq!(machine.threads, 1);
        assert!(!machine.processor.is_empty() && machine.memory_bytes > 0, "{machine:?}");
        assert!(machine.read_bytes_per_second > 0.0 && machine.operations_per_second > 0.0, "{machine:?}");
    }
}
