//! Reuse of the key/value cache between prompts with a common prefix.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Model, Result, Session};

/// Keeps the session of the last prompt, so that a prompt with a common prefix, such as the next turn of a conversation,
/// computes only its new tokens.
///
/// It holds one sequence: the last prompt and its continuation. The common prefix is found by comparing tokens; another
/// model shares none. Results are the same as without it, up to rounding: sums are computed in another order. It holds
/// the memory of the key/value cache, and the model's weights, until it is cleared or dropped.
///
/// Clones share the entry. A generation takes it out while it runs: a second one with the same cache at the same time
/// computes its whole prompt, and the one that ends last is kept.
#[derive(Debug, Clone, Default)]
pub struct PrefixCache {
    entry: Arc<Mutex<Option<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    model: Model,
    session: Session,
    /// The tokens in the session's cache.
    token_ids: Vec<u32>,
}

impl PrefixCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens whose keys and values are cached. The last token of a continuation is not among them, because no step
    /// read it; of a prompt whose computation was cancelled those that had been read are. Empty while a generation runs and
    /// after a step that failed.
    pub fn token_ids(&self) -> Vec<u32> {
        self.lock().as_ref().map_or_else(Vec::new, |entry| entry.token_ids.clone())
    }

    /// Removes the entry and frees its memory.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// A session whose cache holds a prefix of the prompt, and the length of that prefix. At least the last token of the
    /// prompt remains to be read.
    pub(super) fn take(&self, model: &Model, prompt: &[u32]) -> Result<(Session, usize)> {
        let entry = self.lock().take();
        let Some(mut entry) = entry.filter(|entry| entry.model.shares_graph_with(model)) else {
            return Ok((model.session()?, 0));
        };
        let common = entry.token_ids.iter().zip(prompt).take_while(|(cached, new)| cached == new).count();
        let reused = common.min(prompt.len().saturating_sub(1));
        entry.session.truncate(reused)?;
        Ok((entry.session, reused))
    }

    /// Stores a session for the next prompt. `token_ids` are the tokens of its cache, which may hold rejected drafts after
    /// them.
    pub(super) fn store(&self, model: &Model, mut session: Session, token_ids: Vec<u32>) -> Result<()> {
        session.truncate(token_ids.len())?;
        *self.lock() = Some(Entry { model: model.clone(), session, token_ids });
        Ok(())
    }

    /// The entry is always whole, so a panic elsewhere does not invalidate it.
    fn lock(&self) -> MutexGuard<'_, Option<Entry>> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
