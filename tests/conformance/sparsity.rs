//! An expert that no token chose is not computed: its weights may be anything.
//!
//! `tests/interop` counts the rows that each expert of a graph works on.

use std::collections::BTreeSet;

use jetmoe::artifact::OutputName;
use jetmoe::checkpoint::names::{self, Mixture};
use jetmoe::rt::TensorMap;
use jetmoe::rt::{Model, TokenBatch};
use ndarray::{ArrayView1, s};

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(
        subject,
        "sparsity",
        named![
            experts_that_no_token_chose_are_not_computed,
            one_useless_matrix_of_an_expert_that_a_token_chose_changes_the_result,
        ],
    );
}

const MIXTURES: [Mixture; 2] = [Mixture::Attention, Mixture::Mlp];

/// An expert: layer, mixture and number.
type Expert = (usize, Mixture, usize);

/// A case's first tokens, so few that every mixture has an expert that none of them chooses.
struct Routed {
    batch: TokenBatch,
    chosen: Vec<Expert>,
    unchosen: Vec<Expert>,
}

impl Routed {
    /// Goes by the golden router logits of the first sequence, which is not padded.
    fn of(case: &Case) -> Routed {
        let golden = case.golden();
        let checkpoint = case.checkpoint();
        let config = checkpoint.config();
        let experts_of = |tokens: usize| -> Vec<(usize, Mixture, BTreeSet<usize>)> {
            let mixtures =
                (0..config.num_hidden_layers).flat_map(|layer| MIXTURES.map(|mixture| (layer, mixture)));
            mixtures
                .map(|(layer, mixture)| {
                    let logits = &golden.tensors[&router_logits(layer, mixture)];
                    let of_tokens = logits.slice(s![0, ..tokens, ..]);
                    let experts = of_tokens
                        .rows()
                        .into_iter()
                        .flat_map(|logits| best(logits, config.num_experts_per_token));
                    (layer, mixture, experts.collect())
                })
                .collect()
        };
        let leaves_one_out = |tokens: &usize| {
            experts_of(*tokens).iter().all(|(_, _, used)| used.len() < config.num_local_experts)
        };
        assert!(golden.batch.mask().row(0).iter().all(|counts| *counts));
        let tokens = (1..=golden.batch.sequence_length()).take_while(leaves_one_out).last();
        let tokens = tokens.unwrap_or_else(|| panic!("the first token of {} uses all experts", case.name));

        let (mut chosen, mut unchosen) = (Vec::new(), Vec::new());
        for (layer, mixture, used) in experts_of(tokens) {
            for expert in 0..config.num_local_experts {
                let list = if used.contains(&expert) { &mut chosen } else { &mut unchosen };
                list.push((layer, mixture, expert));
            }
        }
        let ids = golden.batch.ids().slice(s![0, ..tokens]).to_vec();
        Routed { batch: TokenBatch::left_padded(&[ids], 0).unwrap(), chosen, unchosen }
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

fn router_logits(layer: usize, mixture: Mixture) -> OutputName {
    match mixture {
        Mixture::Attention => OutputName::AttentionRouterLogits(layer),
        Mixture::Mlp => OutputName::MlpRouterLogits(layer),
    }
}

/// The experts with the largest logits.
fn best(logits: ArrayView1<'_, f32>, count: usize) -> Vec<usize> {
    let mut experts: Vec<usize> = (0..logits.len()).collect();
    experts.sort_by(|left, right| logits[*right].total_cmp(&logits[*left]));
    experts.truncate(count);
    experts
}

fn experts_that_no_token_chose_are_not_computed(subject: Subject) {
    for case in ["tiny", "odd", "top1"].map(Case::named) {
        let routed = Routed::of(&case);
        let changed = case.export_changed("useless experts that no token chose", |draft| {
            for (layer, mixture, expert) in &routed.unchosen {
                for name in matrices(*layer, *mixture) {
                    draft.row(&name, *expert).fill(f32::NAN);
                }
            }
        });
        measured(&format!(
            "{}: {} experts without and {} with one of {} tokens",
            case.name,
            routed.unchosen.len(),
            routed.chosen.len(),
            routed.batch.sequence_length()
        ));
        let expected = routed.run(&case.export().load(subject));
        let found = routed.run(&changed.load(subject));
        assert!(expected.values().flatten().all(|value| value.is_finite()));
        assert!(found == expected, "{} on {subject}", case.name);
    }
}

/// Otherwise the test above would show nothing.
fn one_useless_matrix_of_an_expert_that_a_token_chose_changes_the_result(subject: Subject) {
    let case = Case::named("tiny");
    let routed = Routed::of(&case);
    let expected = routed.run(&case.export().load(subject));
    for mixture in MIXTURES {
        let (layer, _, expert) = *routed.chosen.iter().find(|(_, of, _)| *of == mixture).unwrap();
        for name in matrices(layer, mixture) {
            let what = format!("useless {name} of expert {expert}");
            let changed = case.export_changed(&what, |draft| draft.row(&name, expert).fill(f32::NAN));
            // ONNX Runtime's grouped-query attention makes zeros of a query that is NaN
            assert!(routed.run(&changed.load(subject)) != expected, "{what}, on {subject}");
        }
    }
}

/// Both matrices of the experts of a mixture.
fn matrices(layer: usize, mixture: Mixture) -> [String; 2] {
    [names::expert_input(layer, mixture), names::expert_output(layer, mixture)]
}
