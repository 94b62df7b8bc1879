use super::*;
use crate::{CallingThread, ScopedThreads};

#[test]
fn all_multiply_adds_are_computed() {
    let lanes = Arch::new().dispatch(Lanes);
    assert_eq!(Arch::new().dispatch(MultiplyAdds { start: 0.5 }), (lanes * ACCUMULATORS) as f32);
}

#[test]
fn a_machine_reads_and_computes() {
    let buffer = vec![1; 1 << 16];
    for threads in [&CallingThread as &dyn Threads, &ScopedThreads(2)] {
        assert!(read_bytes_per_second(threads, &[&buffer]) > 0.0);
        assert!(float32_operations_per_second(threads) > 0.0);
    }
}
