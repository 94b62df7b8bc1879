//! Settings of glibc's allocator. By default it returns a large freed block to the system at once, or keeps it, depending on
//! what the process freed before. With another allocator, these functions change nothing.

use std::ffi::c_int;

/// Runs `load` with settings under which large freed blocks return to the system at once, and
/// [keeps them](keep_freed_memory) afterwards.
///
/// ONNX Runtime rewrites quantized weights one at a time and frees the originals. glibc keeps freed blocks of up to 32 MiB
/// once it has seen blocks of that size, and a loaded model then takes 2.2 times its weights instead of 1.65 times.
pub fn with_freed_memory_returned<T>(load: impl FnOnce() -> T) -> T {
    set(Setting::MapFrom, 64 << 10);
    set(Setting::TrimFrom, 128 << 10);
    let loaded = load();
    keep_freed_memory();
    loaded
}

/// Lets the process keep up to 64 MiB that it freed, for the next step.
///
/// A step allocates the results of its operators and frees them. If they return to the system, the next step gets pages
/// that Linux fills with zeros first, which took a sixth of the time of a prompt of 128 tokens in tract.
pub fn keep_freed_memory() {
    set(Setting::MapFrom, 32 << 20);
    set(Setting::TrimFrom, 64 << 20);
}

#[derive(Debug, Clone, Copy)]
enum Setting {
    /// Blocks from this size on are mapped, and unmapped when they are freed.
    MapFrom,
    /// Freed memory at the end of the heap returns to the system from this size on.
    TrimFrom,
}

fn set(setting: Setting, bytes: c_int) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let parameter = match setting {
            Setting::MapFrom => libc::M_MMAP_THRESHOLD,
            Setting::TrimFrom => libc::M_TRIM_THRESHOLD,
        };
        // SAFETY: mallopt takes two integers and may be called at any time and from any thread.
        let accepted = unsafe { libc::mallopt(parameter, bytes) };
        if accepted == 0 {
            tracing::debug!("the allocator does not take {bytes} bytes for {setting:?}");
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (setting, bytes);
}
