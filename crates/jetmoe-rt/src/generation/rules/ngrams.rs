//! N-grams that may not occur again.

use std::collections::HashMap;

use super::{LogitsRule, Tokens, exclude};

/// What follows the first tokens of every n-gram.
#[derive(Debug)]
struct Followers {
    size: usize,
    followers: HashMap<Vec<u32>, Vec<u32>>,
    /// Tokens whose n-grams are recorded.
    read: usize,
}

impl Followers {
    fn new(size: usize) -> Self {
        Followers { size, followers: HashMap::new(), read: 0 }
    }

    /// Records the n-grams that end in tokens that were not read yet.
    fn record(&mut self, tokens: &[u32]) {
        let start = (self.read + 1).saturating_sub(self.size);
        for ngram in tokens[start..].windows(self.size) {
            if let Some((last, first)) = ngram.split_last() {
                self.followers.entry(first.to_vec()).or_default().push(*last);
            }
        }
        self.read = tokens.len();
    }

    /// Excludes the tokens that would complete a recorded n-gram after `tokens`.
    fn exclude(&self, tokens: &[u32], scores: &mut [f32]) {
        let Some(start) = (tokens.len() + 1).checked_sub(self.size) else { return };
        for id in self.followers.get(&tokens[start..]).into_iter().flatten() {
            exclude(scores, *id);
        }
    }
}

/// `NoRepeatNGramLogitsProcessor`: an n-gram occurs once in prompt and continuation.
#[derive(Debug)]
pub(super) struct NoRepeat(Followers);

impl NoRepeat {
    pub(super) fn new(size: usize) -> Self {
        NoRepeat(Followers::new(size))
    }
}

impl LogitsRule for NoRepeat {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        self.0.record(tokens.all);
        self.0.exclude(tokens.all, scores);
    }
}

/// `EncoderNoRepeatNGramLogitsProcessor`: the n-grams of the prompt do not occur again. For a model without an encoder
/// transformers takes the prompt.
#[derive(Debug)]
pub(super) struct NoRepeatOfPrompt {
    followers: Followers,
    is_recorded: bool,
}

impl NoRepeatOfPrompt {
    pub(super) fn new(size: usize) -> Self {
        NoRepeatOfPrompt { followers: Followers::new(size), is_recorded: false }
    }
}

impl LogitsRule for NoRepeatOfPrompt {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        if !self.is_recorded {
            self.followers.record(tokens.prompt());
            self.is_recorded = true;
        }
        self.followers.exclude(tokens.all, scores);
    }
}
