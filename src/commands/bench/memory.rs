//! How much memory this process takes, where the system has `/proc`.

use std::fs;

use serde::Serialize;

/// Memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// The most that was resident, mapped files included, in bytes.
    pub(crate) peak_bytes: u64,
    /// What no file stands behind, when everything was measured, in bytes.
    pub(crate) anonymous_bytes: u64,
}

/// Has the peak begin again at what is resident now, so that it does not show what went before. Says whether that worked.
pub(crate) fn reset_peak() -> bool {
    // the kernel's number for it, see proc_pid_clear_refs(5)
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Memory since [`reset_peak`]; `None` where the system does not say.
pub(crate) fn used() -> Option<Memory> {
    from_status(&fs::read_to_string("/proc/self/status").ok()?)
}

fn from_status(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
    };
    Some(Memory { peak_bytes: field("VmHWM:")?, anonymous_bytes: field("RssAnon:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nRssAnon:\t1024 kB\n";
        assert_eq!(from_status(status), Some(Memory { peak_bytes: 2 << 20, anonymous_bytes: 1 << 20 }));
    }

    #[test]
    fn a_system_that_does_not_say_has_no_answer() {
        assert_eq!(from_status("Name:\tx\n"), None);
    }
}
