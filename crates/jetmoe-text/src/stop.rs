//! Stop strings: the end of a text that arrives in pieces.

use std::ops::Range;

use crate::{Error, Result};

/// Truncates a text that arrives in pieces before the first stop string.
///
/// The first match is the one that ends first; of several that end at the same character it is the longest. The result
/// does not depend on how the text is split into pieces. Special tokens are compared, but they are not part of the text.
#[derive(Debug)]
pub struct StopMatcher {
    stop: Vec<String>,
    /// Text that may be the start of a stop string.
    held: String,
    /// Ranges of `held` that are special tokens.
    hidden: Vec<Range<usize>>,
    is_stopped: bool,
}

impl StopMatcher {
    /// Matches any of `stop`.
    ///
    /// # Errors
    /// [`Error::EmptyStopString`] if one of them is empty.
    pub fn new(stop: &[String]) -> Result<Self> {
        if stop.iter().any(String::is_empty) {
            return Err(Error::EmptyStopString);
        }
        Ok(StopMatcher { stop: stop.to_vec(), held: String::new(), hidden: Vec::new(), is_stopped: false })
    }

    /// Adds a piece and returns the text that cannot be part of a stop string.
    pub fn push(&mut self, piece: &str) -> String {
        if self.is_stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(start) = self.first_stop() {
            self.is_stopped = true;
            let text = self.release(start);
            self.held.clear();
            self.hidden.clear();
            return text;
        }
        self.release(self.held.len() - self.longest_held_prefix())
    }

    /// Adds the text of a special token: it is compared with the stop strings, and not returned. Returns as
    /// [`StopMatcher::push`].
    pub fn push_special(&mut self, token: &str) -> String {
        if self.is_stopped || self.stop.is_empty() {
            return String::new();
        }
        self.hidden.push(self.held.len()..self.held.len() + token.len());
        self.push(token)
    }

    /// Returns the text that was held back, after the last piece.
    pub fn finish(&mut self) -> String {
        self.release(self.held.len())
    }

    /// Removes the first `length` bytes of the held text and returns what is not hidden of them.
    fn release(&mut self, length: usize) -> String {
        let rest = self.held.split_off(length);
        let mut text = std::mem::replace(&mut self.held, rest);
        for hidden in self.hidden.iter().rev().filter(|hidden| hidden.start < length) {
            text.replace_range(hidden.start..hidden.end.min(length), "");
        }
        self.hidden.retain_mut(|hidden| {
            *hidden = hidden.start.saturating_sub(length)..hidden.end.saturating_sub(length);
            hidden.start < hidden.end
        });
        text
    }

    /// Whether there is anything to find.
    pub(crate) fn has_stop_strings(&self) -> bool {
        !self.stop.is_empty()
    }

    /// Whether a stop string was found.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Start of the stop string that ends first.
    fn first_stop(&self) -> Option<usize> {
        self.stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min()
            .map(|(_, start)| start)
    }

    /// Length in bytes of the longest prefix of a stop string that the held text ends with.
    fn longest_held_prefix(&self) -> usize {
        self.stop
            .iter()
            .flat_map(|stop| stop.char_indices().map(|(length, _)| &stop[..length]))
            .filter(|prefix| self.held.ends_with(prefix))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
