//! Reuse of the key/value cache between prompts with a common prefix.

use crate::{Model, Result, Session};

/// Keeps the session of the last prompt, so that a prompt with a common prefix, such as the next turn of a conversation,
/// computes only its new tokens.
///
/// It holds one sequence: the last prompt and its continuation. The common prefix is found by comparing tokens; another
/// model shares none. Results are the same as without it, up to rounding: sums are computed in another order. It holds
/// the memory of the key/value cache, and the model's weights, until it is cleared or dropped.
#[derive(Debug, Default)]
pub struct PrefixCache {
    entry: Option<Entry>,
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
    /// read it. Empty after a step that failed.
    pub fn token_ids(&self) -> &[u32] {
        self.entry.as_ref().map_or(&[], |entry| &entry.token_ids)
    }

    /// Removes the entry and frees its memory.
    pub fn clear(&mut self) {
        self.entry = None;
    }

    /// A session whose cache holds a prefix of the prompt, and the length of that prefix. At least the last token of the
    /// prompt remains to be read.
    pub(super) fn take(&mut self, model: &Model, prompt: &[u32]) -> Result<(Session, usize)> {
        let Some(mut entry) = self.entry.take().filter(|entry| entry.model.shares_graph_with(model)) else {
            return Ok((model.session()?, 0));
        };
        let common = entry.token_ids.iter().zip(prompt).take_while(|(cached, new)| cached == new).count();
        let reused = common.min(prompt.len().saturating_sub(1));
        entry.session.truncate(reused)?;
        Ok((entry.session, reused))
    }

    /// Stores a session for the next prompt. `token_ids` is the whole sequence, of which no step read the last token.
    pub(super) fn store(
        &mut self,
        model: &Model,
        mut session: Session,
        mut token_ids: Vec<u32>,
    ) -> Result<()> {
        // the cache may hold rejected drafts after the last token but one
        token_ids.pop();
        session.truncate(token_ids.len())?;
        self.entry = Some(Entry { model: model.clone(), session, token_ids });
        Ok(())
    }
}
