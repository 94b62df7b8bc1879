#![allow(clippy::single_range_in_vec_init, reason = "lists of one range of addresses")]

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use jetmoe_kernels::{CallingThread, ScopedThreads};

use super::*;

const PAGE: usize = 4096;

fn pages(ranges: &[AddressRange], window: usize) -> Vec<AddressRange> {
    let requests = requests(ranges, window, PAGE);
    assert!(requests.iter().all(|request| request.advice == libc::MADV_WILLNEED));
    requests.into_iter().map(|request| request.pages).collect()
}

/// Of a page.
fn at(page: usize, byte: usize) -> usize {
    (1 << 30) + page * PAGE + byte
}

#[test]
fn requests_cover_every_byte_and_no_page_twice_in_a_row() {
    let all = |ranges: &[AddressRange]| pages(ranges, usize::MAX);
    assert_eq!(all(&[at(3, 1)..at(3, 2)]), [at(3, 0)..at(4, 0)]);
    assert_eq!(all(&[at(3, 0)..at(4, 0)]), [at(3, 0)..at(4, 0)]);
    assert_eq!(all(&[at(3, 5)..at(4, 1)]), [at(3, 0)..at(5, 0)]);
    // the second range begins in the last page of the first, or is in it
    assert_eq!(all(&[at(0, 0)..at(1, 9), at(1, 9)..at(3, 0)]), [at(0, 0)..at(2, 0), at(2, 0)..at(3, 0)]);
    assert_eq!(all(&[at(0, 0)..at(1, 9), at(1, 9)..at(1, 20)]), [at(0, 0)..at(2, 0)]);
    assert_eq!(all(&[]), []);
}

#[test]
fn long_ranges_become_requests_that_linux_does_not_shorten() {
    let requests = pages(&[at(1, 0)..at(3 * REQUEST_BYTES / PAGE, 0) - 1], usize::MAX);
    let sizes: Vec<usize> = requests.iter().map(|request| request.len()).collect();
    assert_eq!(sizes, [REQUEST_BYTES - PAGE, REQUEST_BYTES, REQUEST_BYTES]);
    assert!(requests.windows(2).all(|pair| pair[0].end == pair[1].start));
}

#[test]
fn the_window_limits_what_is_requested_ahead() {
    let ranges = [at(0, 0)..at(0, 10 * REQUEST_BYTES)];
    assert_eq!(pages(&ranges, 10 * REQUEST_BYTES).len(), 10);
    assert_eq!(pages(&ranges, 10 * REQUEST_BYTES - 1).len(), 9);
    assert_eq!(pages(&ranges, 0), []);
}

#[test]
fn no_page_with_bytes_of_others_is_released() {
    let released = |range: AddressRange| -> Vec<AddressRange> {
        let releases: Vec<Advice> = releases(&[range], PAGE).collect();
        let (pairs, rest) = releases.as_chunks::<2>();
        assert!(rest.is_empty() && pairs.iter().all(|[cold, out]| cold.pages == out.pages));
        assert!(
            pairs
                .iter()
                .all(|[cold, out]| (cold.advice, out.advice) == (libc::MADV_COLD, libc::MADV_PAGEOUT))
        );
        pairs.iter().map(|[cold, _]| cold.pages.clone()).collect()
    };
    assert_eq!(released(at(3, 1)..at(6, 4095)), [at(4, 0)..at(6, 0)]);
    assert_eq!(released(at(3, 0)..at(6, 0)), [at(3, 0)..at(6, 0)]);
    assert_eq!(released(at(3, 1)..at(4, 0)), []);
    assert_eq!(released(at(3, 1)..at(3, 2)), []);
    assert_eq!(released(at(0, 0)..at(600, 1)).len(), 3);
}

/// A file that is mapped, and whose pages are not in memory.
struct Mapping {
    address: *mut libc::c_void,
    bytes: usize,
    _file: tempfile::NamedTempFile,
}

impl Mapping {
    fn new(content: &[u8]) -> Self {
        // not in the folder for temporary files, which may be in memory
        let program = std::env::current_exe().unwrap();
        let file = tempfile::NamedTempFile::new_in(program.parent().unwrap()).unwrap();
        std::fs::write(file.path(), content).unwrap();
        file.as_file().sync_all().unwrap();
        let (descriptor, bytes) = (file.as_file().as_raw_fd(), content.len());
        // SAFETY: the descriptor is open
        assert_eq!(unsafe { libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
        // SAFETY: a new mapping of the test's own file
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, descriptor, 0)
        };
        assert_ne!(address, libc::MAP_FAILED);
        Mapping { address, bytes, _file: file }
    }

    fn resident(&self) -> Vec<bool> {
        let mut pages = vec![0_u8; self.bytes.div_ceil(page_bytes())];
        // SAFETY: the mapping has this many pages
        assert_eq!(unsafe { libc::mincore(self.address, self.bytes, pages.as_mut_ptr()) }, 0);
        pages.iter().map(|page| page & 1 == 1).collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of above, which nothing uses any more
        unsafe { libc::munmap(self.address, self.bytes) };
    }
}

#[test]
fn what_is_requested_becomes_resident_until_it_is_released_and_nothing_changes() {
    let page = page_bytes();
    let content: Vec<u8> = (0..256 * page).map(|index| (index / page) as u8).collect();
    for threads in [&CallingThread as &dyn Threads, &ScopedThreads(3)] {
        let mapping = Mapping::new(&content);
        if mapping.resident().contains(&true) {
            // a file system in memory
            return;
        }
        let at = |page_index: usize, byte: usize| mapping.address.addr() + page_index * page + byte;
        let ranges = [at(10, 1)..at(12, 0), at(64, 0)..at(200, 1)];
        advise(threads, &ranges, &[], usize::MAX);
        let expected: Vec<bool> =
            (0..256).map(|page| (10..12).contains(&page) || (64..=200).contains(&page)).collect();
        // the system reads on its own
        let started = Instant::now();
        while mapping.resident() != expected && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(mapping.resident(), expected);
        // SAFETY: the mapping has these bytes, and the file has its content
        let bytes = unsafe { std::slice::from_raw_parts(mapping.address.cast::<u8>(), mapping.bytes) };
        assert!(bytes[at(64, 0) - at(0, 0)..at(200, 0) - at(0, 0)] == content[64 * page..200 * page]);
        // the system keeps a page that it is about to sort into its lists, until the next request
        let started = Instant::now();
        loop {
            advise(threads, &[], &[at(63, 0)..at(100, 1)], usize::MAX);
            let is_released = !mapping.resident()[64..100].contains(&true);
            if is_released || started.elapsed() >= Duration::from_secs(20) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let resident = mapping.resident();
        assert!(!resident[64..100].contains(&true) && resident[100], "{resident:?}");
        assert!(bytes == content);
    }
}

/// As where a backend copied a weight.
#[test]
fn memory_without_a_file_keeps_its_content() {
    let page = page_bytes();
    let bytes: Vec<u8> = (0..64 * page).map(|index| (index % 251) as u8).collect();
    let copy = bytes.clone();
    let all = [super::super::addresses(&bytes)];
    advise(&CallingThread, &all, &all, usize::MAX);
    advise(&CallingThread, &all, &[], usize::MAX);
    assert!(bytes == copy);
}

#[test]
fn advice_about_memory_without_a_mapping_changes_nothing() {
    let nothing = [0..page_bytes()];
    advise(&CallingThread, &nothing, &nothing, usize::MAX);
}
