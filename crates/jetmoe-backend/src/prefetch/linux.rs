//! Requests for pages of mapped files, and their release, by `madvise`.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use jetmoe_kernels::Threads;

use super::AddressRange;

/// Bytes of one request. Linux shortens a longer one to what the disk takes at once or to its readahead, whichever is more
/// (`force_page_cache_ra` in `mm/readahead.c`); 128 KiB is the default of the latter.
const REQUEST_BYTES: usize = 128 << 10;
/// Bytes that one thread releases at a time.
const RELEASE_BYTES: usize = 1 << 20;

/// Pages to advise the system about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Advice {
    pages: AddressRange,
    advice: libc::c_int,
}

/// Requests the pages of `needed`, in this order and at most `window` bytes, and then releases those of `released`. Each thread takes
/// the next ones, and the disk begins with the first while the others are being requested.
pub(super) fn advise(
    threads: &dyn Threads,
    needed: &[AddressRange],
    released: &[AddressRange],
    window: usize,
) {
    let page = page_bytes();
    let mut all = requests(needed, window, page);
    all.extend(releases(released, page));
    let next = AtomicUsize::new(0);
    let work = |_| {
        while let Some(advice) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            give(advice);
        }
    };
    // waking threads takes longer than a few requests
    if all.len() <= 4 { work(0) } else { threads.run(&work) }
}

/// Requests for the pages of ranges, no page twice in a row.
fn requests(ranges: &[AddressRange], window: usize, page: usize) -> Vec<Advice> {
    let mut requests: Vec<Advice> = Vec::new();
    let mut total = 0;
    for range in ranges {
        let (mut begin, end) = (range.start / page * page, range.end.next_multiple_of(page));
        if let Some(last) = requests.last().filter(|last| last.pages.contains(&begin)) {
            begin = last.pages.end;
        }
        for pages in split(begin..end, REQUEST_BYTES) {
            total += pages.len();
            if total > window {
                return requests;
            }
            requests.push(Advice { pages, advice: libc::MADV_WILLNEED });
        }
    }
    requests
}

/// Releases of the pages of which ranges have every byte. Where a process may not release the pages of a file, they become
/// the first that the system takes.
fn releases(ranges: &[AddressRange], page: usize) -> impl Iterator<Item = Advice> {
    let whole = move |range: &AddressRange| range.start.next_multiple_of(page)..range.end / page * page;
    let parts = ranges.iter().map(whole).flat_map(|range| split(range, RELEASE_BYTES));
    parts.flat_map(|pages| {
        [libc::MADV_COLD, libc::MADV_PAGEOUT].map(|advice| Advice { pages: pages.clone(), advice })
    })
}

/// Parts of a range that end at multiples of a size.
fn split(range: AddressRange, size: usize) -> impl Iterator<Item = AddressRange> {
    let mut begin = range.start;
    std::iter::from_fn(move || {
        let part = begin..(begin + 1).next_multiple_of(size).min(range.end);
        begin = part.end;
        (!part.is_empty()).then_some(part)
    })
}

fn give(Advice { pages, advice }: &Advice) {
    // SAFETY: none of the advices changes what memory holds: the system reads pages that it would read later, or removes pages
    // from memory that it reads again when they are used. For an address without a mapping, the call fails.
    let refused = unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), *advice) };
    if refused != 0 {
        tracing::debug!("advice {advice} about weights is refused: {}", io::Error::last_os_error());
    }
}

fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        // SAFETY: sysconf reads a constant of the system
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
    })
}

#[cfg(test)]
mod tests;
