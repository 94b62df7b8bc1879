use jetmoe_artifact::{Precision, Profile};

use super::*;
use crate::{BalanceLoss, ExpertLoad, ObservedModel, ObservedToken, TokenRouting};

/// A routing of one router with four experts, from the experts of each token; `None` is padding.
fn routing(tokens: &[Option<[usize; 2]>]) -> Routing {
    let positions = tokens.iter().scan(0, |next, token| {
        let position = token.map(|_| *next);
        *next += usize::from(token.is_some());
        Some(position)
    });
    let observed =
        positions.zip(7..).map(|(position, id)| ObservedToken { id, text: None, position, step: 0 });
    let all = || tokens.iter().flatten().flatten();
    let share = |expert| all().filter(|other| **other == expert).count() as f64 / all().count() as f64;
    let load = (0..4).map(|expert| ExpertLoad { tokens: 0, share: share(expert), mean_probability: 0.0 });
    let choice = |experts: [usize; 2]| TokenRouting {
        experts: experts.to_vec(),
        gates: vec![0.5; 2],
        logits: vec![0.0; 4],
        entropy: 0.0,
        margin: Some(experts[1] as f32),
    };
    Routing {
        model: ObservedModel {
            backend: "none".to_owned(),
            precision: Precision::F32,
            profile: Profile::Portable,
        },
        experts: 4,
        experts_per_token: 2,
        sequences: vec![observed.collect()],
        routers: vec![RouterObservation {
            layer: 3,
            part: RouterPart::Mlp,
            load: load.collect(),
            load_entropy: 0.0,
            mean_entropy: 0.0,
            smallest_margin: None,
            tokens: vec![tokens.iter().map(|token| token.map(choice)).collect()],
        }],
        balance_loss: BalanceLoss { all: 0.0, attention: 0.0, mlp: 0.0, transformers: 0.0 },
    }
}

#[test]
fn the_order_of_experts_is_no_change_and_padding_is_not_counted() {
    let first = routing(&[None, Some([0, 1]), Some([2, 3]), Some([0, 3]), Some([1, 2])]);
    let second = routing(&[None, Some([1, 0]), Some([2, 0]), Some([0, 3]), Some([1, 2])]);
    let comparison = compare(first, second).unwrap();
    assert!(comparison.same_tokens);
    assert_eq!(comparison.agreement, Some(0.75));
    let router = &comparison.routers[0];
    assert_eq!((router.layer, router.part), (3, RouterPart::Mlp));
    assert_eq!(router.agreement, Some(0.75));
    let changed =
        ChangedChoice { sequence: 0, token: 2, first: vec![2, 3], second: vec![2, 0], margin: Some(3.0) };
    assert_eq!(router.changed, [changed]);
    assert_eq!(router.share_difference, [0.125, 0.0, 0.0, -0.125]);
    assert_eq!(router.load_distance, 0.125);
}

#[test]
fn other_tokens_have_loads_to_compare_and_no_choices() {
    let first = routing(&[Some([0, 1])]);
    let second = routing(&[Some([2, 3]), Some([2, 3])]);
    let comparison = compare(first, second).unwrap();
    assert!(!comparison.same_tokens);
    assert_eq!((comparison.agreement, comparison.routers[0].agreement), (None, None));
    assert!(comparison.routers[0].changed.is_empty());
    assert_eq!(comparison.routers[0].load_distance, 1.0);
}

#[test]
fn models_with_other_routers_are_not_compared() {
    let other = Routing { experts: 5, ..routing(&[Some([0, 1])]) };
    let error = compare(routing(&[Some([0, 1])]), other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the first model has 1 routers of 4 experts, and the second has 1 routers of 5 experts: they cannot be compared"
    );
}
