//! What glibc's allocator does with freed memory while ONNX Runtime loads.

/// Runs `load`, and has large blocks that it frees go back to the system at once.
///
/// ONNX Runtime rewrites quantized weights one after the other and frees what it made them from. glibc keeps freed blocks
/// of up to 32 MiB for later once it has seen blocks of that size, and a loaded model then took 2.2 times its weights
/// instead of 1.65 times.
pub(super) fn handing_back<T>(load: impl FnOnce() -> T) -> T {
    set_mapped_from(64 << 10);
    let loaded = load();
    // from here on as it is without us, once blocks of that size were freed
    set_mapped_from(32 << 20);
    loaded
}

/// Blocks from this size on are mapped, and unmapped when they are freed.
fn set_mapped_from(bytes: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt takes two integers and may be called at any time and from any thread.
        let accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) };
        if accepted == 0 {
            tracing::debug!("the allocator does not take {bytes} as the least size of a mapped block");
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = bytes;
}
