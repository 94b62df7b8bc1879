//! Memory that begins at a cache line, so that no vector and no line of a tile lies in two, and that the next product uses again.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// The bytes of a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

const LINE: usize = 64;

/// Lines of memory that a thread keeps for its next product: 64 MiB.
const KEPT: usize = (64 << 20) / LINE;

thread_local! {
    /// Memory of products of before. The system fills the pages of new memory with zeros, which took a tenth of the time of a product.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A type of numbers.
///
/// # Safety
/// Any bytes are a value, and a line is aligned for it.
pub(crate) unsafe trait Number: Copy {}

// SAFETY: integers and floats of at most 4 bytes.
unsafe impl Number for i8 {}
// SAFETY: as above.
unsafe impl Number for u16 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for f32 {}

/// Numbers of which the first one is at the beginning of a cache line.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    length: usize,
    number: PhantomData<T>,
}

impl<T: Number> Aligned<T> {
    /// Numbers of any values: zeros, or what a product of before left.
    pub(crate) fn any(length: usize) -> Self {
        let count = (length * size_of::<T>()).div_ceil(LINE);
        let kept = FREE.with_borrow_mut(|free| {
            let fitting = free.iter().enumerate().filter(|(_, lines)| lines.len() >= count);
            let smallest = fitting.min_by_key(|(_, lines)| lines.len()).map(|(place, _)| place);
            smallest.map(|place| free.swap_remove(place))
        });
        Aligned { lines: kept.unwrap_or_else(|| vec![Line([0; LINE]); count]), length, number: PhantomData }
    }
}

impl<T> Drop for Aligned<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // At the end of a thread there is nothing to keep it in.
        let _ = FREE.try_with(|free| {
            let Ok(mut free) = free.try_borrow_mut() else { return };
            if free.iter().map(Vec::len).sum::<usize>() + lines.len() <= KEPT {
                free.push(lines);
            }
        });
    }
}

impl<T: Number> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines have at least as many bytes, which are initialized, aligned and a value each, see [`Number`].
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T: Number> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; any bytes are a line.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Aligned, FREE, KEPT, LINE};

    #[test]
    fn numbers_begin_at_a_line_and_their_memory_is_used_again() {
        for length in [0, 1, 5, 64, 1000] {
            let mut numbers = Aligned::<u16>::any(length);
            assert_eq!((numbers.len(), numbers.as_ptr() as usize % LINE), (length, 0));
            numbers.fill(1);
        }
        let first = Aligned::<f32>::any(1000);
        let place = first.as_ptr();
        let second = Aligned::<f32>::any(1000);
        assert_ne!(place, second.as_ptr());
        drop(first);
        assert_eq!(Aligned::<f32>::any(900).as_ptr(), place);
    }

    #[test]
    fn a_thread_keeps_no_more_than_the_limit() {
        let blocks: Vec<_> = (0..5).map(|_| Aligned::<u16>::any(20 << 19)).collect();
        drop(blocks);
        let kept: usize = FREE.with_borrow(|free| free.iter().map(Vec::len).sum());
        assert!(0 < kept && kept <= KEPT, "{kept} lines");
    }
}
