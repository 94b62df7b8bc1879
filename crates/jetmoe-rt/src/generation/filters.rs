//! Sampling filters: which tokens may be drawn, and how probable each is.
//!
//! Definitions and order are those of transformers 5.23 (`generation/logits_process.py`; `generation/utils.py`,
//! `_get_logits_processor`): temperature, `top_h`, `top_k`, `top_p`, `min_p`, `typical_p`, `epsilon_cutoff`, `eta_cutoff`.
//! Each filter sees the distribution that the one before it left.

use std::cmp::Ordering;

use super::Multinomial;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) id: u32,
    /// Logit / temperature, minus that of the most probable token: at most 0.
    score: f32,
    /// Probability relative to the most probable token: at most 1.
    pub(super) weight: f32,
}

impl Candidate {
    /// Most probable first, ties by id, so that the result does not depend on the sorting algorithm.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

/// The tokens that may be drawn. Filters that are off cost nothing.
#[derive(Debug, Default)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    /// Fills the list from scores `[vocab_size]` with a finite maximum.
    pub(super) fn fill(&mut self, scores: &[f32], highest: f32, sampling: Multinomial) {
        let Multinomial { temperature, top_k, top_p, min_p, top_h, typical_p, epsilon_cutoff, eta_cutoff } =
            sampling;
        self.0.clear();
        let possible = (0..).zip(scores).filter(|(_, score)| **score > f32::NEG_INFINITY);
        self.0.extend(possible.map(|(id, score)| {
            // relative to the highest score, so that no temperature overflows
            Candidate { id, score: (score - highest) / temperature, weight: 0.0 }
        }));
        if let Some(top_h) = top_h {
            self.keep_entropy(top_h);
        }
        if let Some(top_k) = top_k {
            self.keep_best(top_k);
        }
        for candidate in &mut self.0 {
            candidate.weight = candidate.score.exp();
        }
        if let Some(top_p) = top_p.filter(|top_p| *top_p < 1.0) {
            self.keep_mass(top_p);
        }
        if let Some(min_p) = min_p {
            self.0.retain(|candidate| candidate.weight >= min_p);
        }
        if let Some(mass) = typical_p.filter(|mass| *mass < 1.0) {
            self.keep_typical(mass);
        }
        if let Some(epsilon) = epsilon_cutoff {
            self.keep_probable(f64::from(epsilon));
        }
        if let Some(eta) = eta_cutoff {
            let eta = f64::from(eta);
            self.keep_probable(eta.min(eta.sqrt() * (-self.entropy()).exp()));
        }
    }

    /// The tokens, and their relative probabilities.
    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.0
    }

    pub(super) fn total_weight(&self) -> f64 {
        self.0.iter().map(|candidate| f64::from(candidate.weight)).sum()
    }

    /// `TopHLogitsWarper`: of the 100 most probable tokens, the first whose terms of the entropy add up to `top_h` of it.
    fn keep_entropy(&mut self, top_h: f32) {
        const CONSIDERED: usize = 100;
        if CONSIDERED < self.0.len() {
            self.0.select_nth_unstable_by(CONSIDERED - 1, Candidate::order);
            self.0.truncate(CONSIDERED);
        }
        self.0.sort_unstable_by(Candidate::order);
        let total: f64 = self.0.iter().map(|candidate| f64::from(candidate.score).exp()).sum();
        let term = |candidate: &Candidate| {
            let probability = f64::from(candidate.score).exp() / total;
            if probability > 0.0 { -probability * probability.ln() } else { 0.0 }
        };
        let limit = f64::from(top_h) * self.0.iter().map(term).sum::<f64>();
        let mut sum = 0.0;
        let kept = self.0.iter().take_while(|candidate| {
            sum += term(candidate);
            sum <= limit
        });
        let kept = kept.count().max(1);
        self.0.truncate(kept);
    }

    /// `TopKLogitsWarper`: the `top_k` most probable tokens in order, and others that are as probable as the last of them.
    fn keep_best(&mut self, top_k: usize) {
        if top_k >= self.0.len() {
            return;
        }
        let last = top_k.saturating_sub(1);
        let (_, kth, _) = self.0.select_nth_unstable_by(last, Candidate::order);
        let threshold = kth.score;
        let mut index = 0;
        self.0.retain(|candidate| {
            index += 1;
            index <= top_k || candidate.score >= threshold
        });
        // the draw must not depend on the order that the selection leaves
        self.0.sort_unstable_by(Candidate::order);
    }

    /// `TopPLogitsWarper`: the smallest set of the most probable tokens with at least this probability. Of equally probable
    /// ones the higher ids stay, as with `torch.sort`.
    fn keep_mass(&mut self, top_p: f32) {
        let total = self.total_weight();
        // all tokens below this weight together have less than 1 − top_p, so none of them is needed: only the rest,
        // usually few of tens of thousands, has to be sorted
        let negligible = (1.0 - f64::from(top_p)) * total / self.0.len() as f64;
        self.0.retain(|candidate| f64::from(candidate.weight) >= negligible);
        self.0.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(b.id.cmp(&a.id)));
        let needed = f64::from(top_p) * total;
        let mut before = 0.0;
        let kept = self.0.iter().take_while(|candidate| {
            let is_needed = before < needed;
            before += f64::from(candidate.weight);
            is_needed
        });
        let kept = kept.count().max(1);
        self.0.truncate(kept);
        self.0.sort_unstable_by(Candidate::order);
    }

    /// `TypicalLogitsWarper`: the tokens whose information is nearest to the entropy, with at least this probability together.
    fn keep_typical(&mut self, mass: f32) {
        let (total, entropy) = (self.total_weight(), self.entropy());
        let log_total = total.ln();
        let distance = |candidate: &Candidate| (log_total - f64::from(candidate.score) - entropy).abs();
        let mut typical: Vec<(f64, f64)> =
            self.0.iter().map(|one| (distance(one), f64::from(one.weight) / total)).collect();
        typical.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sum = 0.0;
        let needed = typical.iter().take_while(|(_, probability)| {
            sum += probability;
            sum < f64::from(mass)
        });
        let last = needed.count().min(typical.len().saturating_sub(1));
        if let Some((farthest, _)) = typical.get(last) {
            self.0.retain(|candidate| distance(candidate) <= *farthest);
        }
    }

    /// `EpsilonLogitsWarper` and `EtaLogitsWarper`: the tokens with at least this probability, and the most probable one.
    fn keep_probable(&mut self, least: f64) {
        let total = self.total_weight();
        let highest = self.0.iter().map(|candidate| candidate.score).fold(f32::NEG_INFINITY, f32::max);
        self.0.retain(|one| f64::from(one.weight) >= least * total || one.score >= highest);
    }

    /// Entropy of the distribution in nats.
    fn entropy(&self) -> f64 {
        let total = self.total_weight();
        let log_total = total.ln();
        let terms = self.0.iter().filter(|candidate| candidate.weight > 0.0);
        terms.map(|one| f64::from(one.weight) / total * (log_total - f64::from(one.score))).sum()
    }
}
