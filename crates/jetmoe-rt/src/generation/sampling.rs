//! Sampling of the next token from logits.
//!
//! The steps and their order are those of transformers 5 (`generation/utils.py`, `_get_logits_processor`): repetition
//! penalty, temperature, `top_k`, `top_p`, `min_p`, softmax, draw.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use ndarray::ArrayView1;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{GenerationOptions, Multinomial, Sampling};

/// Samples next tokens from logits. All sequences of a batch share its buffers.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    repetition_penalty: f32,
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// Sampling state of one sequence.
#[derive(Debug)]
pub(super) struct SequenceState {
    random: ChaCha8Rng,
    /// Tokens of prompt and continuation; empty without a repetition penalty.
    seen: BTreeSet<u32>,
}

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    /// Logit / temperature, minus that of the most probable token: at most 0.
    score: f32,
    /// Probability relative to the most probable token: at most 1.
    weight: f32,
}

impl Candidate {
    /// Most probable first, ties by id, so that the result does not depend on the sorting algorithm.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl Sampler {
    /// A sampler for validated options.
    pub(super) fn new(options: &GenerationOptions) -> Self {
        Sampler {
            sampling: options.sampling,
            repetition_penalty: options.repetition_penalty,
            scores: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// State of the sequence with index `sequence` in the batch. Every sequence has its own random stream, so it does not
    /// depend on the other sequences.
    pub(super) fn start_sequence(&self, seed: u64, sequence: usize, prompt: &[u32]) -> SequenceState {
        // not `seed_from_u64`, whose expansion may change between releases
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(sequence as u64);
        let seen = if self.has_penalty() { prompt.iter().copied().collect() } else { BTreeSet::new() };
        SequenceState { random, seen }
    }

    /// The next token for logits `[vocab_size]`; `None` if one of them is NaN or their maximum is not finite.
    pub(super) fn sample(&mut self, logits: ArrayView1<'_, f32>, state: &mut SequenceState) -> Option<u32> {
        self.scores.clear();
        self.scores.extend(logits.iter());
        for id in &state.seen {
            if let Some(score) = self.scores.get_mut(*id as usize) {
                *score = if *score < 0.0 {
                    *score * self.repetition_penalty
                } else {
                    *score / self.repetition_penalty
                };
            }
        }
        let (best, best_score) = argmax(&self.scores)?;
        let chosen = match self.sampling {
            Sampling::Greedy => best,
            Sampling::Multinomial(Multinomial { temperature, top_k, top_p, min_p }) => {
                self.fill_candidates(best_score, temperature, top_k);
                self.filter_candidates(top_p, min_p);
                draw(&self.candidates, &mut state.random)?
            }
        };
        if self.has_penalty() {
            state.seen.insert(chosen);
        }
        Some(chosen)
    }

    fn has_penalty(&self) -> bool {
        self.repetition_penalty != 1.0
    }

    /// The `top_k` most probable tokens in order, or all tokens by id.
    fn fill_candidates(&mut self, best_score: f32, temperature: f32, top_k: Option<usize>) {
        self.candidates.clear();
        self.candidates.extend(self.scores.iter().zip(0..).map(|(score, id)| {
            // relative to the highest score, so that no temperature overflows
            Candidate { id, score: (score - best_score) / temperature, weight: 0.0 }
        }));
        if let Some(top_k) = top_k.filter(|top_k| *top_k < self.candidates.len()) {
            self.candidates.select_nth_unstable_by(top_k.saturating_sub(1), Candidate::order);
            self.candidates.truncate(top_k);
            // the draw must not depend on the order that the selection leaves
            self.candidates.sort_unstable_by(Candidate::order);
        }
        for candidate in &mut self.candidates {
            candidate.weight = candidate.score.exp();
        }
    }

    fn filter_candidates(&mut self, top_p: Option<f32>, min_p: Option<f32>) {
        if let Some(top_p) = top_p.filter(|top_p| *top_p < 1.0) {
            let total = total_weight(&self.candidates);
            // all tokens below this weight together have less than 1 − top_p, so none of them is needed: only the rest,
            // usually few of tens of thousands, has to be sorted
            let negligible = (1.0 - f64::from(top_p)) * total / self.candidates.len() as f64;
            self.candidates.retain(|candidate| f64::from(candidate.weight) >= negligible);
            self.candidates.sort_unstable_by(Candidate::order);
            let needed = f64::from(top_p) * total;
            let mut before = 0.0;
            let kept = self.candidates.iter().take_while(|candidate| {
                let is_needed = before < needed;
                before += f64::from(candidate.weight);
                is_needed
            });
            let kept = kept.count();
            self.candidates.truncate(kept);
        }
        if let Some(min_p) = min_p {
            self.candidates.retain(|candidate| candidate.weight >= min_p);
        }
    }
}

/// Index of the first of the highest scores, and its value.
fn argmax(scores: &[f32]) -> Option<(u32, f32)> {
    // no branch per score, so that the compiler vectorises the loop
    let (highest, is_number) =
        scores.iter().fold((f32::NEG_INFINITY, true), |(highest, is_number), score| {
            (if *score > highest { *score } else { highest }, is_number & !score.is_nan())
        });
    if !is_number || !highest.is_finite() {
        return None;
    }
    let first = scores.iter().position(|score| *score == highest)?;
    Some((first as u32, highest))
}

fn draw(candidates: &[Candidate], random: &mut ChaCha8Rng) -> Option<u32> {
    // 53 bits in [0, 1), computed here so that a seed gives the same draw with every version of `rand`
    let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let target = unit * total_weight(candidates);
    let mut sum = 0.0;
    for candidate in candidates {
        sum += f64::from(candidate.weight);
        if sum > target {
            return Some(candidate.id);
        }
    }
    // rounding may raise the target to the whole sum
    candidates.iter().rev().find(|candidate| candidate.weight > 0.0).map(|candidate| candidate.id)
}

fn total_weight(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

#[cfg(test)]
mod tests;
