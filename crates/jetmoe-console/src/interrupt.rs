//! Ctrl-C.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ExitStatus;

type Cancel = Box<dyn Fn() + Send + Sync>;

static CANCEL: OnceLock<Cancel> = OnceLock::new();
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C calls `abort` and ends the process.
pub(crate) fn watch_interrupt(abort: fn()) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        let is_first = !INTERRUPTED.swap(true, Ordering::SeqCst);
        match CANCEL.get() {
            Some(cancel) if is_first => cancel(),
            _ => {
                abort();
                std::process::exit(ExitStatus::Interrupted as i32);
            }
        }
    })
}

/// Lets the command finish on the first Ctrl-C, which from now on only calls `cancel` in another thread. The second one ends
/// the process. A second call of this function has no effect.
pub fn finish_on_interrupt(cancel: impl Fn() + Send + Sync + 'static) {
    // an interrupt before this line has ended the process
    CANCEL.get_or_init(|| Box::new(cancel));
}
