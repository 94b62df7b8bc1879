//! Memory of this process, on systems with `/proc`.

use std::fs;

use serde::Serialize;

/// Memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Peak resident memory in bytes, including mapped files.
    pub(crate) peak_bytes: u64,
    /// Anonymous memory in bytes, which no file backs, at the end.
    pub(crate) anonymous_bytes: u64,
}

/// Resets the peak to the memory that is resident now. Returns whether that worked.
pub(crate) fn reset_peak() -> bool {
    // see proc_pid_clear_refs(5)
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Memory since [`reset_peak`]; `None` if the system does not report it.
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
    fn missing_fields_give_none() {
        assert_eq!(from_status("Name:\tx\n"), None);
    }
}
