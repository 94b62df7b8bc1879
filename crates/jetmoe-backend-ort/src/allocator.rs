//! Settings of glibc's allocator while ONNX Runtime loads a graph.

/// Runs `load` with settings under which large freed blocks return to the system at once.
///
/// ONNX Runtime rewrites quantized weights one at a time and frees the originals. glibc keeps freed blocks of up to 32 MiB
/// once it has seen blocks of that size, and a loaded model then takes 2.2 times its weights instead of 1.65 times.
pub(crate) fn with_low_mmap_threshold<T>(load: impl FnOnce() -> T) -> T {
    set_mmap_threshold(64 << 10);
    let loaded = load();
    // the value that glibc reaches by default after blocks of that size were freed
    set_mmap_threshold(32 << 20);
    loaded
}

/// Maps blocks from this size on, and unmaps them when they are freed.
fn set_mmap_threshold(bytes: i32) {
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
