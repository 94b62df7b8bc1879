//! An expert that no token chose is not computed: its weights may be anything.
//!
//! `tests/interop` counts the rows that each expert of a graph works on.

use std::collections::BTreeSet;

use jetmoe::artifact::OutputName;
use jetmoe::checkpoint::names::{self, Mixture};
use jetmoe::conformance::Backend;
use jetmoe::rt::engine::TensorMap;
use jetmoe::rt::{Model, TokenBatch};
use ndarray::s;

use crate::fixtures::{Altered, Case};

/// So few tokens that some experts of every mixture have nothing to do.
const TOKENS: usize = 2;

const MIXTURES: [Mixture; 2] = [Mixture::Attention, Mixture::Mlp];

/// The first tokens of a case and, by its golden router logits, the experts that they do not choose.
struct Routed {
    batch: TokenBatch,
    /// Layer, mixture and number of every expert.
    unchosen: Vec<(usize, Mixture, usize)>,
    chosen: Vec<(usize, Mixture, usize)>,
}

impl Routed {
    fn of(case: &Case) -> Routed {
        let golden = case.golden();
        let checkpoint = case.checkpoint();
        let config = checkpoint.config();
        assert!(golden.batch.mask().row(0).iter().all(|counts| *counts), "the first sequence is not padded");
        let ids = golden.batch.ids().slice(s![0, ..TOKENS]).to_vec();
        let (mut chosen, mut unchosen) = (Vec::new(), Vec::new());
        for layer in 0..config.num_hidden_layers {
            for mixture in MIXTURES {
                let logits = match mixture {
                    Mixture::Attention => &golden.tensors[&OutputName::AttentionRouterLogits(layer)],
                    Mixture::Mlp => &golden.tensors[&OutputName::MlpRouterLogits(layer)],
                };
                let used: BTreeSet<usize> = (0..TOKENS)
                    .flat_map(|token| {
                        let logits = logits.slice(s![0, token, ..]);
                        let mut experts: Vec<usize> = (0..logits.len()).collect();
                        experts.sort_by(|left, right| logits[*right].total_cmp(&logits[*left]));
                        experts.truncate(config.num_experts_per_token);
                        experts
                    })
                    .collect();
                let all = 0..config.num_local_experts;
                assert!(used.len() < all.len(), "layer {layer} of {} leaves no expert out", case.name);
                for expert in all {
                    let list = if used.contains(&expert) { &mut chosen } else { &mut unchosen };
                    list.push((layer, mixture, expert));
                }
            }
        }
        Routed { batch: TokenBatch::left_padded(&[ids], 0).unwrap(), unchosen, chosen }
    }

    /// Every output, and the cache.
    fn run(&self, model: &Model) -> TensorMap {
        let mut session = model.session().unwrap();
        let output = session.step(&self.batch).unwrap();
        let mut tensors = session.cache().unwrap();
        tensors.extend(output.tensors().clone());
        tensors
    }
}

/// Makes both matrices of an expert useless.
fn spoil(altered: &mut Altered, layer: usize, mixture: Mixture, expert: usize) {
    for name in [names::expert_input(layer, mixture), names::expert_output(layer, mixture)] {
        altered.row(&name, expert).fill(f32::NAN);
    }
}

#[test]
fn experts_that_no_token_chose_are_not_computed() {
    for case in ["tiny", "odd", "top1"].map(Case::named) {
        let routed = Routed::of(&case);
        let mut altered = Altered::from(&case);
        for (layer, mixture, expert) in &routed.unchosen {
            spoil(&mut altered, *layer, *mixture, *expert);
        }
        let (clean, spoilt) = (case.export(), altered.export());
        for backend in Backend::built_in() {
            let expected = routed.run(&clean.load(backend));
            let found = routed.run(&spoilt.load(backend));
            assert!(expected.values().flatten().all(|value| value.is_finite()));
            assert!(found == expected, "{} on {backend}", case.name);
        }
    }
}

/// Otherwise the test above would show nothing.
#[test]
fn one_useless_matrix_of_an_expert_that_a_token_chose_spoils_the_result() {
    let case = Case::named("tiny");
    let routed = Routed::of(&case);
    for mixture in MIXTURES {
        let (layer, _, expert) = *routed.chosen.iter().find(|(_, of, _)| *of == mixture).unwrap();
        for name in [names::expert_input(layer, mixture), names::expert_output(layer, mixture)] {
            let mut altered = Altered::from(&case);
            altered.row(&name, expert).fill(f32::NAN);
            let export = altered.export();
            for backend in Backend::built_in() {
                let found = routed.run(&export.load(backend));
                let logits = &found[&OutputName::Logits];
                assert!(logits.iter().any(|value| value.is_nan()), "{name}, expert {expert}, on {backend}");
            }
        }
    }
}
