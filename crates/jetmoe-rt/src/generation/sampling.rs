//! Choice of the next token: [rules](super::rules), then the maximum or a draw from what the [filters](super::filters) leave.

use ndarray::ArrayView1;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::argmax::argmax;
use super::filters::Candidates;
use super::rules::{Rules, SequenceLimits, Tokens};
use super::{GenerationOptions, Sampling};

/// Chooses next tokens from logits. All sequences of a batch share its buffers.
#[derive(Debug)]
pub(super) struct Sampler {
    options: GenerationOptions,
    scores: Vec<f32>,
    candidates: Candidates,
}

/// Sampling state of one sequence.
#[derive(Debug)]
pub(super) struct SequenceState {
    random: ChaCha8Rng,
    rules: Rules,
}

/// Why no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// A logit is NaN, or their maximum is not finite.
    Logits,
    /// The rules exclude every token.
    Excluded,
}

impl Sampler {
    /// A sampler for validated options.
    pub(super) fn new(options: &GenerationOptions) -> Self {
        Sampler { options: options.clone(), scores: Vec::new(), candidates: Candidates::default() }
    }

    /// State of the sequence with index `sequence` in the batch. Every sequence has its own random stream, so it does not
    /// depend on the other sequences.
    pub(super) fn start_sequence(
        &self,
        seed: u64,
        sequence: usize,
        limits: SequenceLimits<'_>,
    ) -> SequenceState {
        // not `seed_from_u64`, whose expansion may change between releases
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(sequence as u64);
        SequenceState { random, rules: Rules::new(&self.options, limits) }
    }

    /// The token after `tokens`, for logits `[vocab_size]`; one of those that are allowed, if a function says which.
    pub(super) fn sample(
        &mut self,
        logits: ArrayView1<'_, f32>,
        tokens: Tokens<'_>,
        state: &mut SequenceState,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<u32, NoChoice> {
        let contiguous = logits.as_slice();
        if let (Sampling::Greedy, Some(scores)) = (self.options.sampling, contiguous)
            && state.rules.is_empty()
            && allowed.is_none()
        {
            // without a copy
            return argmax(scores).map(|(best, _)| best).ok_or(NoChoice::Logits);
        }
        self.scores.clear();
        match contiguous {
            Some(scores) => self.scores.extend_from_slice(scores),
            None => self.scores.extend(logits.iter()),
        }
        state.rules.apply(tokens, &mut self.scores);
        if let Some(allowed) = allowed {
            // after the rules, of which some replace infinities
            let excluded = (0..).zip(&mut self.scores).filter(|(id, _)| !allowed(*id));
            excluded.for_each(|(_, score)| *score = f32::NEG_INFINITY);
        }
        let Some((best, highest)) = argmax(&self.scores) else {
            let has_choice = || argmax(&logits.to_vec()).is_some();
            let is_excluded = (!state.rules.is_empty() || allowed.is_some()) && has_choice();
            return Err(if is_excluded { NoChoice::Excluded } else { NoChoice::Logits });
        };
        match self.options.sampling {
            Sampling::Greedy => Ok(best),
            Sampling::Multinomial(multinomial) => {
                self.candidates.fill(&self.scores, highest, multinomial);
                draw(&self.candidates, &mut state.random).ok_or(NoChoice::Logits)
            }
        }
    }
}

fn draw(candidates: &Candidates, random: &mut ChaCha8Rng) -> Option<u32> {
    // 53 bits in [0, 1), computed here so that a seed gives the same draw with every version of `rand`
    let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let target = unit * candidates.total_weight();
    let mut sum = 0.0;
    let candidates = candidates.as_slice();
    for candidate in candidates {
        sum += f64::from(candidate.weight);
        if sum > target {
            return Some(candidate.id);
        }
    }
    // rounding may raise the target to the whole sum
    candidates.iter().rev().find(|candidate| candidate.weight > 0.0).map(|candidate| candidate.id)
}

#[cfg(test)]
pub(super) mod tests;
