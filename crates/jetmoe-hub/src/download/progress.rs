//! Progress of a download: hf-hub's events, summed over all files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use hf_hub::progress::{DownloadEvent, FileProgress, FileStatus, ProgressEvent, ProgressHandler};

use super::RepoFile;
use crate::{DownloadObserver, DownloadProgress};

/// Passes the state of a download to an observer after every event.
pub(super) struct ProgressTracker {
    observer: Arc<dyn DownloadObserver>,
    files: BTreeMap<String, RepoFile>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of every file that hf-hub reports separately.
    bytes: BTreeMap<String, u64>,
    /// Bytes of all Xet files, which hf-hub reports as one batch.
    xet_bytes: u64,
    in_progress: BTreeSet<String>,
}

impl ProgressTracker {
    pub(super) fn new(observer: Arc<dyn DownloadObserver>, files: BTreeMap<String, RepoFile>) -> Self {
        let in_progress =
            files.iter().filter(|(_, file)| file.is_xet).map(|(name, _)| name.clone()).collect();
        ProgressTracker { observer, files, state: Mutex::new(State { in_progress, ..State::default() }) }
    }

    fn update(&self, event: &DownloadEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            DownloadEvent::Start { .. } | DownloadEvent::Complete => {}
            DownloadEvent::Progress { files } => files.iter().for_each(|file| self.advance(&mut state, file)),
            DownloadEvent::AggregateProgress { bytes_completed, .. } => state.xet_bytes = *bytes_completed,
        }
        self.observer.on_progress(&DownloadProgress {
            bytes_done: state.bytes.values().sum::<u64>() + state.xet_bytes,
            bytes_total: self.files.values().map(|file| file.bytes).sum(),
            files: state.in_progress.iter().map(String::as_str).collect(),
            is_complete: matches!(event, DownloadEvent::Complete),
        });
    }

    fn advance(&self, state: &mut State, file: &FileProgress) {
        let Some(listed) = self.files.get(&file.filename) else { return };
        let is_complete = file.status == FileStatus::Complete;
        if is_complete {
            state.in_progress.remove(&file.filename);
        } else {
            state.in_progress.insert(file.filename.clone());
        }
        if !listed.is_xet {
            let bytes = if is_complete { listed.bytes } else { file.bytes_completed };
            state.bytes.insert(file.filename.clone(), bytes);
        }
    }
}

impl ProgressHandler for ProgressTracker {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Download(event) = event {
            self.update(event);
        }
    }
}
