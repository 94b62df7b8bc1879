//! Writes spans of time in the trace format of Chromium, which Perfetto reads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::{Error, Result};

/// Spans of time, for a backend whose engine does not write its own trace.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    start: Instant,
    sessions: AtomicU64,
    events: Mutex<Vec<Value>>,
}

impl Trace {
    /// Starts a trace that [`Trace::write`] writes to a file.
    pub fn new(path: &Path) -> Self {
        let (sessions, events) = (AtomicU64::new(1), Mutex::default());
        Trace { path: path.to_owned(), start: Instant::now(), sessions, events }
    }

    /// A number for a session, whose spans share a row.
    pub fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Records what a session did between two moments.
    pub fn record(&self, session: u64, name: &str, start: Instant, end: Instant) {
        let microseconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e6;
        let event = json!({
            "name": name, "cat": "jetmoe", "ph": "X", "pid": std::process::id(), "tid": session,
            "ts": microseconds(self.start, start), "dur": microseconds(start, end),
        });
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Writes the spans so far.
    ///
    /// # Errors
    /// [`Error::Trace`].
    pub fn write(&self) -> Result<()> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |source| Error::Trace { path: self.path.clone(), source };
        let file = File::create(&self.path).map_err(refused)?;
        serde_json::to_writer(file, &*events).map_err(|error| refused(error.into()))
    }
}
