//! What a runtime did when, in the trace format of Chromium, which Perfetto reads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::{Error, Result};

/// Spans of time, for a runtime that does not write its own trace.
#[derive(Debug)]
pub(crate) struct Trace {
    path: PathBuf,
    begun: Instant,
    sessions: AtomicU64,
    events: Mutex<Vec<Value>>,
}

impl Trace {
    /// Begins to keep spans for a file.
    pub(crate) fn new(path: &Path) -> Self {
        let (sessions, events) = (AtomicU64::new(1), Mutex::default());
        Trace { path: path.to_owned(), begun: Instant::now(), sessions, events }
    }

    /// A number for a session, whose spans share a line.
    pub(crate) fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps what a session did between two moments.
    pub(crate) fn keep(&self, session: u64, name: &str, begun: Instant, ended: Instant) {
        let microseconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e6;
        let event = json!({
            "name": name, "cat": "jetmoe", "ph": "X", "pid": std::process::id(), "tid": session,
            "ts": microseconds(self.begun, begun), "dur": microseconds(begun, ended),
        });
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Writes the spans so far.
    pub(crate) fn write(&self) -> Result<()> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |source| Error::Trace { path: self.path.clone(), source };
        let file = File::create(&self.path).map_err(refused)?;
        serde_json::to_writer(file, &*events).map_err(|error| refused(error.into()))
    }
}
