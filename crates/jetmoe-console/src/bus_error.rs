//! The message of a process that the system ends because it cannot read a mapped file.

/// Printed before the process ends. A handler of a signal can neither allocate nor format.
#[cfg(target_os = "linux")]
const MESSAGE: &[u8] = b"error: a mapped file became shorter while it was in use, or cannot be read (SIGBUS)\n  \
    replace files of a model by a rename instead of writing into them, or use a copy of the weights: --private-copy DIR\n";

/// From now on the process says why before SIGBUS ends it. Only on Linux, where a stack overflow is another signal.
pub(crate) fn report_bus_errors() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: zero is valid for every field of the structure, and is an empty mask. The handler calls only `write`, which
        // may be called in one. The system restores its own action before it calls the handler, so the access that failed is
        // repeated after it, and ends the process as without a handler.
        let refused = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = report as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
        };
        if refused != 0 {
            tracing::debug!("no message for SIGBUS: {}", std::io::Error::last_os_error());
        }
    }
}

#[cfg(target_os = "linux")]
extern "C" fn report(_signal: libc::c_int) {
    // SAFETY: the pointer and the length are those of a constant
    unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
}
