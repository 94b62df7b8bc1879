//! Tells the system which pages of a mapped data file a loaded graph no longer needs.

use std::path::Path;

/// Advises the system to reclaim the pages of a mapped file first when memory is short. ONNX Runtime copies weights into its own
/// layout, and does not read the source again.
///
/// The advice never changes what memory holds. Between reading the list of mappings and giving the advice, another thread may
/// unmap the file and map something else at its address; advice that gives pages up (`MADV_DONTNEED`) would destroy that.
///
/// Does nothing without `/proc/self/maps`, or before Linux 5.4.
pub(crate) fn advise_cold(file: &Path) {
    #[cfg(target_os = "linux")]
    {
        let maps = match std::fs::read_to_string("/proc/self/maps") {
            Ok(maps) => maps,
            Err(error) => {
                tracing::debug!("no advice about the pages of {}: {error}", file.display());
                return;
            }
        };
        let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        for (begin, end) in mappings(&maps, &file.to_string_lossy()) {
            // SAFETY: the advice changes only the order in which the system reclaims pages. Whatever is mapped at the address by
            // now, its content stays; if nothing is, the call fails.
            let refused = unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_COLD) };
            if refused != 0 {
                let error = std::io::Error::last_os_error();
                tracing::debug!("no advice about the pages of {}: {error}", file.display());
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Address ranges of a file's mappings.
#[cfg(target_os = "linux")]
fn mappings(maps: &str, file: &str) -> Vec<(usize, usize)> {
    let range = |line: &str| {
        // the range, four words about it, the path
        let path = line.splitn(6, char::is_whitespace).nth(5)?.trim_start();
        let (begin, end) = line.split_whitespace().next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(begin)?, number(end)?)).filter(|(begin, end)| path == file && begin < end)
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f00-7f10 r--p 00000000 fd:00 12   /models/a b/weights
7f10-7f20 rw-p 00001000 fd:00 12   /models/a b/weights
7f20-7f30 r--p 00000000 fd:00 13   /models/a b/other
7f30-7f40 rw-p 00000000 00:00 0
7f40-7f50 rw-p 00000000 00:00 0    [heap]
7f60-7f50 rw-p 00000000 fd:00 13   /models/a b/other
";

    #[test]
    fn the_mappings_are_those_of_the_file() {
        assert_eq!(mappings(MAPS, "/models/a b/weights"), [(0x7f00, 0x7f10), (0x7f10, 0x7f20)]);
        assert_eq!(mappings(MAPS, "/models/a b/other"), [(0x7f20, 0x7f30)]);
        assert_eq!(mappings(MAPS, "/models/none"), []);
    }

    /// As if another thread had written to the mapping, or mapped other memory at its address.
    #[test]
    fn the_advice_leaves_memory_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 1 << 16]).unwrap();
        // a private mapping whose written page no file backs
        // SAFETY: a new private mapping of the test's own file, which is unmapped below and used by nothing else
        let address = unsafe {
            use std::os::fd::AsRawFd;
            let open = std::fs::File::open(file.path()).unwrap();
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let address =
                libc::mmap(std::ptr::null_mut(), 1 << 16, access, libc::MAP_PRIVATE, open.as_raw_fd(), 0);
            assert_ne!(address, libc::MAP_FAILED);
            address.cast::<u8>()
        };
        // SAFETY: the mapping has 1 << 16 bytes, and nothing else refers to it
        unsafe { address.add(5000).write_volatile(42) };
        advise_cold(file.path());
        // SAFETY: as above
        let bytes = unsafe { [address.read_volatile(), address.add(5000).read_volatile()] };
        assert_eq!(bytes, [7, 42]);
        // SAFETY: the mapping of above, which nothing uses any more
        assert_eq!(unsafe { libc::munmap(address.cast(), 1 << 16) }, 0);
    }
}
