//! The boundary of panics: code of one job runs inside, and a panic in it ends that job only.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::JobError;

/// Runs code of one job. A panic in it is an error of that job, which the caller drops: nothing reads what it left.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, JobError>) -> Result<T, JobError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(JobError::Panic { message: message(panic.as_ref()) }))
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let panics: [fn() -> Result<(), JobError>; 2] = [|| panic!("fixed"), || panic!("number {}", 3)];
        for (work, expected) in panics.into_iter().zip(["fixed", "number 3"]) {
            let error = guarded(work).unwrap_err();
            assert!(matches!(&error, JobError::Panic { message } if message == expected), "{error:?}");
        }
        assert_eq!(guarded(|| Ok(5)).unwrap(), 5);
    }
}
