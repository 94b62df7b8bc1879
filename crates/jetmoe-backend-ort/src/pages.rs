//! Returns the pages of a mapped data file that a loaded graph no longer needs.

use std::path::Path;

/// Advises the system that the process does not need the pages of a mapped file. ONNX Runtime copies weights into its own
/// layout, and the source pages stay resident, 0.2 bytes for each byte of a 4-bit model. If they are accessed again, the
/// system reads them from the file.
///
/// Does nothing without `/proc/self/smaps`, or if the process has written to the pages.
pub(crate) fn advise_dont_need(file: &Path) {
    #[cfg(target_os = "linux")]
    {
        let smaps = match std::fs::read_to_string("/proc/self/smaps") {
            Ok(smaps) => smaps,
            Err(error) => {
                tracing::debug!("the pages of {} stay: {error}", file.display());
                return;
            }
        };
        let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        for (begin, end) in unwritten(&smaps, &file.to_string_lossy()) {
            // SAFETY: the range is a mapping of a file in which this process has written nothing, so every page that is
            // given up is read from the file again, with the same content, when it is accessed.
            let refused =
                unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
            if refused != 0 {
                tracing::debug!("the system keeps the pages of {}", file.display());
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Address ranges of a file's mappings without a page that was written to.
#[cfg(target_os = "linux")]
fn unwritten(smaps: &str, file: &str) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let mut inside = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        match first.strip_suffix(':') {
            // a mapping begins: its range, four words about it, its path
            None => {
                let path = line.splitn(6, char::is_whitespace).nth(5).unwrap_or_default().trim_start();
                let range = first.split_once('-').and_then(|(begin, end)| {
                    let number = |text| usize::from_str_radix(text, 16).ok();
                    Some((number(begin)?, number(end)?))
                });
                inside = path == file && range.is_some();
                ranges.extend(range.filter(|_| inside));
            }
            Some("Anonymous" | "Private_Dirty" | "Shared_Dirty") if inside => {
                if words.next() != Some("0") {
                    ranges.pop();
                    inside = false;
                }
            }
            Some(_) => {}
        }
    }
    ranges
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f00-7f10 r--p 00000000 fd:00 12   /models/a b/weights
Rss:                  64 kB
Shared_Dirty:          0 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
7f10-7f20 rw-p 00000000 fd:00 12   /models/a b/weights
Shared_Dirty:          0 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
7f20-7f30 r--p 00000000 fd:00 13   /models/a b/other
Private_Dirty:         0 kB
Anonymous:             0 kB
7f30-7f40 rw-p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_mappings_of_the_file_without_a_written_page_are_given_up() {
        assert_eq!(unwritten(SMAPS, "/models/a b/weights"), [(0x7f00, 0x7f10)]);
        assert_eq!(unwritten(SMAPS, "/models/a b/other"), [(0x7f20, 0x7f30)]);
        assert_eq!(unwritten(SMAPS, "/models/none"), []);
    }
}
