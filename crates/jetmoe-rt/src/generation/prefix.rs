use crate::{Model, Result, Session};

/// Keeps what a model computed for one text, so that a next prompt that begins with the same tokens, such as the next
/// turn of a conversation, computes only what is new.
///
/// It is for one text at a time and remembers the last one: prompt and continuation. Nothing has to be said about where
/// texts part; a prompt that begins otherwise, or another model, is computed from its first token that differs. Results
/// are those without it, but for the rounding of arithmetic that adds up in another order. It holds the cache's memory,
/// and the model's weights, until it is cleared or dropped.
#[derive(Debug, Default)]
pub struct PrefixCache {
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    model: Model,
    session: Session,
    /// The tokens that the session has read.
    token_ids: Vec<u32>,
}

impl PrefixCache {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens whose keys and values are kept. The last token of a continuation is not among them, since no step
    /// read it; after a step that failed there is none.
    pub fn token_ids(&self) -> &[u32] {
        self.kept.as_ref().map_or(&[], |kept| &kept.token_ids)
    }

    /// Forgets everything and gives its memory back.
    pub fn clear(&mut self) {
        self.kept = None;
    }

    /// A session that has read the first tokens of a prompt, and how many; at least the last one is left to be read.
    pub(super) fn take(&mut self, model: &Model, prompt: &[u32]) -> Result<(Session, usize)> {
        let Some(mut kept) = self.kept.take().filter(|kept| kept.model.shares_graph_with(model)) else {
            return Ok((model.session()?, 0));
        };
        let alike = kept.token_ids.iter().zip(prompt).take_while(|(kept, new)| kept == new).count();
        let reused = alike.min(prompt.len().saturating_sub(1));
        kept.session.truncate(reused)?;
        Ok((kept.session, reused))
    }

    /// Keeps a session for the next prompt, as far as it has read `token_ids`.
    pub(super) fn keep(
        &mut self,
        model: &Model,
        mut session: Session,
        mut token_ids: Vec<u32>,
    ) -> Result<()> {
        // the newest token was not read yet, and drafts behind it may have been
        token_ids.pop();
        session.truncate(token_ids.len())?;
        self.kept = Some(Kept { model: model.clone(), session, token_ids });
        Ok(())
    }
}
