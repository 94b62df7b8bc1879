//! The vocabulary of a model as `llguidance` reads it: the bytes that each token adds to a text.

use std::fmt;
use std::sync::Arc;

use jetmoe_rt::Tokenizer;
use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

/// Why constraints cannot be followed with a vocabulary.
#[derive(Debug, Clone)]
pub(super) struct Unusable {
    pub(super) problem: String,
}

impl Unusable {
    fn new(error: impl fmt::Display) -> Self {
        Unusable { problem: format!("the vocabulary of the model is not usable: {error}") }
    }
}

/// The tables of a vocabulary, shared by all its constraints.
pub(super) struct Vocabulary {
    pub(super) factory: ParserFactory,
    pub(super) twins: Arc<Twins>,
}

/// Tokens whose bytes are those of another token, as `<0x7B>` and `{`: the trie has one of them only.
#[derive(Debug, Default)]
pub(super) struct Twins(Vec<(u32, u32)>);

impl Twins {
    /// Each such token, with the one that the trie has.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }
}

impl Vocabulary {
    /// The tables for a model of `vocab_size` ids, whose texts end with `eos_token_ids`.
    ///
    /// # Errors
    /// A tokenizer that cannot decode its tokens.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        eos_token_ids: &[u32],
    ) -> Result<Self, Unusable> {
        let words = words(tokenizer, vocab_size)?;
        let trie = trie(&words, eos_token_ids);
        let twins = (0..).zip(&words).filter_map(|(id, word)| {
            let first = trie.token_id_at_bytes(word)?;
            (first != id && !word.is_empty()).then_some((id, first))
        });
        let twins = Arc::new(Twins(twins.collect()));
        // no token is forced: the sampler chooses how forced text is split into tokens
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(Unusable::new)?;
        // it would print
        factory.quiet();
        // it would add the grammar and the text so far to every error
        factory.limits_mut().verbose_errors = false;
        Ok(Vocabulary { factory, twins })
    }
}

/// Bytes of every token: empty for one that is not a text, with a mark in front for a special token.
fn words(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Vec<Vec<u8>>, Unusable> {
    let bytes = tokenizer.token_bytes().map_err(Unusable::new)?;
    let word = |id: u32| match tokenizer.special_token(id) {
        Some(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        None => bytes.get(id as usize).cloned().unwrap_or_default(),
    };
    let size = u32::try_from(vocab_size).map_err(Unusable::new)?;
    Ok((0..size).map(word).collect())
}

fn trie(words: &[Vec<u8>], eos_token_ids: &[u32]) -> TokTrie {
    let eos: Vec<u32> = eos_token_ids.iter().copied().filter(|id| (*id as usize) < words.len()).collect();
    let info = TokRxInfo::new(words.len() as u32, eos.first().copied().unwrap_or(INVALID_TOKEN));
    let trie = TokTrie::from(&info, words);
    if eos.len() > 1 { trie.with_eos_tokens(&eos) } else { trie }
}

#[cfg(test)]
mod tests {
    use jetmoe_testing::fixtures;

    use super::*;

    #[test]
    fn the_trie_has_the_bytes_of_every_token() {
        let tokenizer = Tokenizer::open(&fixtures::checkpoint("jetmoe-mini")).unwrap().unwrap();
        let size = tokenizer.vocab_size() + 3;
        let trie = trie(&words(&tokenizer, size).unwrap(), &[2, 9999]);
        let id = |token: &str| tokenizer.token_id(token).unwrap();
        assert_eq!(trie.token(id("\u{2581}the")), b" the");
        assert_eq!(trie.token(id("<0x7B>")), b"{");
        assert_eq!(trie.token(id("<0xFF>")), [0xff]);
        assert!(trie.is_special_token(id("</s>")));
        assert_eq!(trie.token(size as u32 - 1), b"", "an id that only the model has");
        assert_eq!(trie.eos_tokens(), [2]);
    }

    #[test]
    fn tokens_of_the_same_bytes_are_twins() {
        let tokenizer = Tokenizer::open(&fixtures::checkpoint("jetmoe-mini")).unwrap().unwrap();
        let vocabulary = Vocabulary::new(&tokenizer, tokenizer.vocab_size(), &[2]).unwrap();
        let id = |token: &str| tokenizer.token_id(token).unwrap();
        let twins: Vec<(u32, u32)> = vocabulary.twins.iter().collect();
        let in_trie =
            |token: &str| twins.iter().find(|(twin, _)| *twin == id(token)).map_or(id(token), |it| it.1);
        assert_eq!(in_trie("<0x61>"), in_trie("a"));
        assert_eq!(in_trie("<0x7B>"), id("<0x7B>"), "no other token is a brace");
        assert_eq!(in_trie("\u{2581}the"), id("\u{2581}the"));
    }
}
