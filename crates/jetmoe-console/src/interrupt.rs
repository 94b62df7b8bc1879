//! Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::ExitStatus;

static MAY_FINISH: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C calls `abort` and ends the process.
pub(crate) fn watch_interrupt(abort: fn()) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        let is_first = !INTERRUPTED.swap(true, Ordering::SeqCst);
        if is_first && MAY_FINISH.load(Ordering::SeqCst) {
            return;
        }
        abort();
        std::process::exit(ExitStatus::Interrupted as i32);
    })
}

/// Lets the command finish on the first Ctrl-C, which from now on only sets [`is_interrupted`]. The second one ends the
/// process.
pub fn finish_on_interrupt() {
    MAY_FINISH.store(true, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
