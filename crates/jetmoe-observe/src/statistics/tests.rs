use super::*;

fn token(logits: [f32; 4], experts: [usize; 2]) -> TokenRouting {
    TokenRouting {
        experts: experts.to_vec(),
        gates: vec![0.5; 2],
        logits: logits.to_vec(),
        entropy: 0.0,
        margin: None,
    }
}

fn router(part: RouterPart, tokens: &[TokenRouting]) -> RouterObservation {
    let load = loads(4, tokens.iter());
    RouterObservation {
        layer: 0,
        part,
        load_entropy: load_entropy(&load),
        load,
        mean_entropy: 0.0,
        smallest_margin: None,
        tokens: vec![tokens.iter().cloned().map(Some).collect()],
    }
}

#[test]
fn equal_loads_have_the_least_balance_loss() {
    let equal = [token([0.0; 4], [0, 1]), token([0.0; 4], [2, 3])];
    let routers = [router(RouterPart::Attention, &equal), router(RouterPart::Mlp, &equal)];
    let loss = balance_loss(&routers, 4, 2);
    for (found, part) in [(loss.all, "all"), (loss.attention, "attention"), (loss.mlp, "mlp")] {
        assert!((found - 2.0).abs() < 1e-12, "{part}: {found}");
    }
    assert!((routers[0].load_entropy - 1.0).abs() < 1e-12);

    // all tokens take the same two experts, with certainty of one of them
    let unequal = [token([99.0, 0.0, -9.0, -9.0], [0, 1])];
    let loss = balance_loss(&[router(RouterPart::Mlp, &unequal)], 4, 2);
    assert!((loss.mlp - 4.0).abs() < 1e-12, "{loss:?}");
    assert_eq!((loss.attention, loss.transformers), (0.0, loss.mlp));
}

#[test]
fn nothing_is_nan_without_tokens_or_with_one_expert() {
    let empty = router(RouterPart::Mlp, &[]);
    assert_eq!(empty.load_entropy, 0.0);
    assert!(empty.load.iter().all(|load| (load.tokens, load.share, load.mean_probability) == (0, 0.0, 0.0)));
    assert_eq!(balance_loss(&[empty], 4, 2).all, 0.0);
    assert_eq!(load_entropy(&[ExpertLoad { tokens: 3, share: 1.0, mean_probability: 1.0 }]), 1.0);
}

#[test]
fn entropy_is_that_of_the_softmax() {
    let equal = entropy(softmax(&[3.5; 8]));
    assert!((equal - 8.0_f64.ln()).abs() < 1e-12);
    assert_eq!(entropy([1.0, 0.0]).to_bits(), 0.0_f64.to_bits());
    let odds = softmax(&[3.0_f32.ln(), 0.0]);
    assert!((odds[0] - 0.75).abs() < 1e-7, "{odds:?}");
}
