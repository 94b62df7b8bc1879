//! Panics of kernels, and of libraries underneath, as errors: one function for every crate that calls them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `work`, and turns a panic into the error that `error` makes of its message. What `work` changed must not be used
/// after a panic.
///
/// # Errors
/// That of `work`, or that of a panic.
pub fn catch_panics<T, E>(
    work: impl FnOnce() -> Result<T, E>,
    error: impl FnOnce(String) -> E,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Err(error(text.unwrap_or("panicked without a message").to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let text = |work: fn() -> Result<(), String>| catch_panics(work, |text| text).unwrap_err();
        assert_eq!(text(|| panic!("in {}", 1)), "in 1");
        assert_eq!(text(|| panic!("in a kernel")), "in a kernel");
        assert_eq!(text(|| Err("no panic".to_owned())), "no panic");
        assert_eq!(text(|| std::panic::panic_any(1)), "panicked without a message");
    }
}
