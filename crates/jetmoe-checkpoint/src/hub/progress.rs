//! The progress bar of a download.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use hf_hub::progress::{DownloadEvent, FileProgress, FileStatus, ProgressEvent, ProgressHandler};
use indicatif::{ProgressBar, ProgressStyle};

use super::Listed;

const TEMPLATE: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// One bar over the bytes of all files, on standard error; it draws nothing where that is no terminal.
pub(super) struct DownloadBar {
    bar: ProgressBar,
    files: BTreeMap<String, Listed>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of every file that is reported by itself.
    bytes: BTreeMap<String, u64>,
    /// Bytes of all chunked files together.
    chunked_bytes: u64,
    running: BTreeSet<String>,
}

impl DownloadBar {
    pub(super) fn new(files: BTreeMap<String, Listed>) -> Self {
        let bar = ProgressBar::new(files.values().map(|file| file.bytes).sum());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self::with_bar(bar, files)
    }

    pub(super) fn with_bar(bar: ProgressBar, files: BTreeMap<String, Listed>) -> Self {
        let running = files.iter().filter(|(_, file)| file.chunked).map(|(name, _)| name.clone()).collect();
        DownloadBar { bar, files, state: Mutex::new(State { running, ..State::default() }) }
    }

    fn update(&self, event: &DownloadEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            DownloadEvent::Start { .. } => {}
            DownloadEvent::Progress { files } => files.iter().for_each(|file| self.advance(&mut state, file)),
            DownloadEvent::AggregateProgress { bytes_completed, .. } => {
                state.chunked_bytes = *bytes_completed
            }
            DownloadEvent::Complete => {
                self.bar.finish_and_clear();
                return;
            }
        }
        let mut running = state.running.iter();
        self.bar.set_message(match (running.next(), running.count()) {
            (None, _) => String::new(),
            (Some(name), 0) => name.clone(),
            (Some(name), more) => format!("{name} and {more} more"),
        });
        self.bar.set_position(state.bytes.values().sum::<u64>() + state.chunked_bytes);
    }

    fn advance(&self, state: &mut State, file: &FileProgress) {
        let Some(listed) = self.files.get(&file.filename) else { return };
        let complete = file.status == FileStatus::Complete;
        if complete {
            state.running.remove(&file.filename);
        } else {
            state.running.insert(file.filename.clone());
        }
        if !listed.chunked {
            let bytes = if complete { listed.bytes } else { file.bytes_completed };
            state.bytes.insert(file.filename.clone(), bytes);
        }
    }
}

impl ProgressHandler for DownloadBar {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Download(event) = event {
            self.update(event);
        }
    }
}
