use std::cmp::Ordering;
use std::collections::BTreeSet;

use ndarray::ArrayView1;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{GenerationOptions, Sampling};

/// Chooses next tokens from logits. Its buffers serve every sequence of a batch.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    repetition_penalty: f32,
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// What choosing remembers about one sequence.
#[derive(Debug)]
pub(super) struct SequenceMemory {
    random: ChaCha8Rng,
    /// Empty where no repetition is penalised.
    seen: BTreeSet<u32>,
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    /// Logit over temperature, relative to the best token's: at most 0.
    score: f32,
    /// Probability relative to the best token's: at most 1.
    weight: f32,
}

impl Candidate {
    /// Best first; equal ones by id, so that no choice depends on how a sorting algorithm treats them.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl Sampler {
    /// For validated options.
    pub(super) fn new(options: &GenerationOptions) -> Self {
        Sampler {
            sampling: options.sampling,
            repetition_penalty: options.repetition_penalty,
            scores: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Starts to remember a sequence, given as its prompt and its number in the batch. Every sequence draws from a
    /// stream of its own, so that it does not depend on what its neighbours drew.
    pub(super) fn memory(&self, seed: u64, sequence: usize, prompt: &[u32]) -> SequenceMemory {
        // the seed is laid out here and not by `seed_from_u64`, whose expansion is free to change
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(sequence as u64);
        let seen = if self.penalises() { prompt.iter().copied().collect() } else { BTreeSet::new() };
        SequenceMemory { random, seen }
    }

    /// The next token for logits `[vocab_size]`; `None` if one of them is NaN or their maximum is not finite.
    pub(super) fn choose(&mut self, logits: ArrayView1<'_, f32>, memory: &mut SequenceMemory) -> Option<u32> {
        self.scores.clear();
        self.scores.extend(logits.iter());
        for id in &memory.seen {
            if let Some(score) = self.scores.get_mut(*id as usize) {
                *score = if *score < 0.0 {
                    *score * self.repetition_penalty
                } else {
                    *score / self.repetition_penalty
                };
            }
        }
        let (best, best_score) = best(&self.scores)?;
        let chosen = match self.sampling {
            Sampling::Greedy => best,
            Sampling::Random { temperature, top_k, top_p, min_p } => {
                self.weigh(best_score, temperature, top_k);
                self.keep_probable(top_p, min_p);
                draw(&self.candidates, &mut memory.random)?
            }
        };
        if self.penalises() {
            memory.seen.insert(chosen);
        }
        Some(chosen)
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
    }

    /// Fills the candidates: the `top_k` best of all scores, best first, or all by id.
    fn weigh(&mut self, best_score: f32, temperature: f32, top_k: Option<usize>) {
        self.candidates.clear();
        self.candidates.extend(self.scores.iter().zip(0..).map(|(score, id)| {
            // relative to the best, so that no temperature overflows
            Candidate { id, score: (score - best_score) / temperature, weight: 0.0 }
        }));
        if let Some(top_k) = top_k.filter(|top_k| *top_k < self.candidates.len()) {
            self.candidates.select_nth_unstable_by(top_k.saturating_sub(1), Candidate::order);
            self.candidates.truncate(top_k);
            // what is drawn must not depend on the order in which the selection left them
            self.candidates.sort_unstable_by(Candidate::order);
        }
        for candidate in &mut self.candidates {
            candidate.weight = candidate.score.exp();
        }
    }

    fn keep_probable(&mut self, top_p: Option<f32>, min_p: Option<f32>) {
        if let Some(top_p) = top_p.filter(|top_p| *top_p < 1.0) {
            let total = total_weight(&self.candidates);
            // tokens below this have less than 1 − top_p together, so none of them is needed: only the rest, most
            // often a few of tens of thousands, has to be sorted
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

/// The first of the highest scores, and its value.
fn best(scores: &[f32]) -> Option<(u32, f32)> {
    // without a branch for each score, so that the compiler takes several at a time
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
    // 53 bits in [0, 1): written out, so that the draw of a seed is the same whatever version of `rand` is used
    let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let target = unit * total_weight(candidates);
    let mut sum = 0.0;
    for candidate in candidates {
        sum += f64::from(candidate.weight);
        if sum > target {
            return Some(candidate.id);
        }
    }
    // rounding may take the target up to the whole sum
    candidates.iter().rev().find(|candidate| candidate.weight > 0.0).map(|candidate| candidate.id)
}

fn total_weight(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

#[cfg(test)]
mod tests;
