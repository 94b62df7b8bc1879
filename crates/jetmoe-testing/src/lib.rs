//! Shared by the test suites of the workspace, and by nothing else: fixtures, temporary checkpoints, damaged checkpoints,
//! a local hub, and commands typed as a user types them.
//!
//! The crate depends on no other crate of the workspace. So the unit tests of every crate can use it, and no
//! dependency cycle makes cargo build a crate twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod checkpoint;
mod command;
pub mod damage;
pub mod files;
pub mod fixtures;
pub mod hub;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

pub use checkpoint::{CheckpointDraft, DraftTensor};
pub use command::{CommandLine, CommandOutput, FILTERS, TestContext};
#[doc(hidden)]
pub use insta;

/// Reports on standard error that a test is skipped, and why.
///
/// # Panics
/// With `CI=true` in the environment, where a skipped test is a failure.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI skips no test: {reason}");
    let test = std::thread::current();
    // not `eprintln!`, which libtest captures and shows of failed tests only
    let _ = writeln!(std::io::stderr(), "skipped {}: {reason}", test.name().unwrap_or("a test"));
}

/// Values that several tests need, each made once per process by the first test that asks for it.
pub struct Cache<K, V>(Mutex<BTreeMap<K, Arc<OnceLock<Arc<V>>>>>);

impl<K: Ord, V> Cache<K, V> {
    /// A cache that holds nothing.
    pub const fn new() -> Self {
        Cache(Mutex::new(BTreeMap::new()))
    }

    /// The value of a key. Other tests that ask for the same key meanwhile wait for it.
    pub fn get(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let cell = Arc::clone(self.0.lock().unwrap().entry(key).or_default());
        Arc::clone(cell.get_or_init(|| Arc::new(make())))
    }

    /// Drops every value, which a static does not do: temporary folders are then removed.
    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl<K: Ord, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
