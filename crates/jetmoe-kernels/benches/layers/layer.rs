//! The sizes of the layer and the experts that its tokens choose. The benchmark of Candle's kernels
//! (`crates/jetmoe-reference/benches/q4k.rs`) uses this file; that of the other runtimes (`crates/jetmoe-bench/baselines/layers.py`)
//! computes the same.

use std::collections::BTreeSet;

pub(crate) const HIDDEN: usize = 2048;
pub(crate) const INTERMEDIATE: usize = 5632;
pub(crate) const EXPERTS: usize = 8;
pub(crate) const TOP_K: usize = 2;
/// Weights of one expert.
pub(crate) const WEIGHTS: usize = 3 * HIDDEN * INTERMEDIATE;
/// More tokens than these take so long that two layers are enough.
const MANY: usize = 64;

pub(crate) const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The experts of each token, the same in every round.
pub(crate) fn choices(tokens: usize) -> Vec<i64> {
    let mut state = SEED;
    let mut below = |limit: usize| (random(&mut state) % limit as u64) as usize;
    let pairs = (0..tokens).flat_map(|_| {
        let first = below(EXPERTS);
        [first as i64, ((first + 1 + below(EXPERTS - 1)) % EXPERTS) as i64]
    });
    pairs.collect()
}

/// Number of different experts among the choices: their weights are read.
pub(crate) fn chosen_experts(tokens: usize) -> usize {
    choices(tokens).into_iter().collect::<BTreeSet<_>>().len()
}

/// Operations of a layer; a multiply-add is two.
pub(crate) fn operations(tokens: usize) -> usize {
    2 * tokens * TOP_K * WEIGHTS
}

/// Number of layers that are measured.
pub(crate) fn layers_of(tokens: usize, layers: usize) -> usize {
    if tokens > MANY { 2.min(layers) } else { layers }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Options of the command line, `--name value`.
pub(crate) struct Options(Vec<String>);

impl Options {
    pub(crate) fn new() -> Self {
        Options(std::env::args().collect())
    }

    fn text(&self, name: &str, default: &str) -> String {
        let place = self.0.iter().position(|argument| argument == name);
        place.and_then(|place| self.0.get(place + 1).cloned()).unwrap_or(default.to_owned())
    }

    pub(crate) fn number(&self, name: &str, default: &str) -> Result<usize, std::num::ParseIntError> {
        self.text(name, default).parse()
    }

    pub(crate) fn tokens(&self) -> Result<Vec<usize>, std::num::ParseIntError> {
        self.text("--tokens", "1,16,128,512").split(',').map(str::parse).collect()
    }
}
