//! Tokens and sequences of tokens that are more or less probable, or excluded.

use super::{LogitsRule, Tokens, exclude};

/// Ids with the tokens before them, and a bias that is finite or −∞.
#[derive(Debug)]
struct Biases(Vec<(Vec<u32>, u32, f32)>);

impl Biases {
    fn new<'a>(sequences: impl IntoIterator<Item = (&'a [u32], f32)>) -> Self {
        let split = sequences.into_iter().filter_map(|(sequence, bias)| {
            let (last, before) = sequence.split_last()?;
            Some((before.to_vec(), *last, bias))
        });
        Biases(split.collect())
    }

    /// Adds the biases of the sequences that the next token would complete. Several biases of a token are added first, so that
    /// rounding is as in transformers. A sum that float32 cannot hold is its largest number: +∞ would make every probability NaN.
    fn add(&self, tokens: &[u32], scores: &mut [f32]) {
        let mut sums: Vec<(u32, f32)> = Vec::new();
        for (_, id, bias) in self.0.iter().filter(|(before, ..)| tokens.ends_with(before)) {
            match sums.iter_mut().find(|(known, _)| known == id) {
                Some((_, sum)) => *sum = (*sum + bias).min(f32::MAX),
                None => sums.push((*id, *bias)),
            }
        }
        for (id, sum) in sums {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = add_below_infinity(*score, sum);
            }
        }
    }
}

/// The sum of a score and a bias that is finite or −∞. Only a score of +∞ or NaN, which is the model's, stays one.
fn add_below_infinity(score: f32, bias: f32) -> f32 {
    let sum = score + bias;
    if score < f32::INFINITY { sum.min(f32::MAX) } else { sum }
}

/// `SequenceBiasLogitsProcessor`: adds to the last token of a sequence, after its other tokens.
#[derive(Debug)]
pub(super) struct SequenceBias(Biases);

impl SequenceBias {
    pub(super) fn new(sequence_bias: &[(Vec<u32>, f32)]) -> Self {
        // of a sequence that is named twice the last bias holds, as in Python's dict
        let mut unique: Vec<(&[u32], f32)> = Vec::new();
        for (sequence, bias) in sequence_bias {
            match unique.iter_mut().find(|(known, _)| known == sequence) {
                Some((_, known)) => *known = *bias,
                None => unique.push((sequence, *bias)),
            }
        }
        SequenceBias(Biases::new(unique))
    }
}

impl LogitsRule for SequenceBias {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        self.0.add(tokens.all, scores);
    }
}

/// `NoBadWordsLogitsProcessor`: excludes the last token of a sequence after its other tokens. An end-of-sequence token alone is
/// not excluded.
#[derive(Debug)]
pub(super) struct BadWords(Biases);

impl BadWords {
    pub(super) fn new(bad_words_ids: &[Vec<u32>], eos_token_ids: &[u32]) -> Self {
        let is_eos = |sequence: &[u32]| matches!(sequence, [id] if eos_token_ids.contains(id));
        let excluded = bad_words_ids.iter().map(Vec::as_slice).filter(|sequence| !is_eos(sequence));
        BadWords(Biases::new(excluded.map(|sequence| (sequence, f32::NEG_INFINITY))))
    }
}

impl LogitsRule for BadWords {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        self.0.add(tokens.all, scores);
    }
}

/// `SuppressTokensLogitsProcessor`: excludes tokens.
#[derive(Debug)]
pub(super) struct Suppress(Vec<u32>);

impl Suppress {
    pub(super) fn new(token_ids: &[u32]) -> Self {
        Suppress(token_ids.to_vec())
    }
}

impl LogitsRule for Suppress {
    fn apply(&mut self, _: Tokens<'_>, scores: &mut [f32]) {
        for id in &self.0 {
            exclude(scores, *id);
        }
    }
}

/// `SuppressTokensAtBeginLogitsProcessor`: excludes tokens as the first of a continuation.
#[derive(Debug)]
pub(super) struct SuppressFirst {
    token_ids: Vec<u32>,
    /// Length of prompt and continuation before that token.
    length: usize,
}

impl SuppressFirst {
    pub(super) fn new(token_ids: &[u32], length: usize) -> Self {
        SuppressFirst { token_ids: token_ids.to_vec(), length }
    }
}

impl LogitsRule for SuppressFirst {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        if tokens.all.len() == self.length {
            for id in &self.token_ids {
                exclude(scores, *id);
            }
        }
    }
}
