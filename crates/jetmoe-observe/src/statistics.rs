//! Entropy, load and balance loss.

use crate::{BalanceLoss, ExpertLoad, RouterObservation, RouterPart, TokenRouting};

/// Probabilities by the softmax of logits.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Entropy of probabilities, in nats.
pub(crate) fn entropy(probabilities: impl IntoIterator<Item = f64>) -> f64 {
    let terms = probabilities.into_iter().filter(|one| *one > 0.0).map(|one| -one * one.ln());
    // a sum of nothing is -0
    terms.sum::<f64>() + 0.0
}

/// The load of every expert of a router, from what it decided for the tokens.
pub(crate) fn loads<'a>(experts: usize, tokens: impl Iterator<Item = &'a TokenRouting>) -> Vec<ExpertLoad> {
    let (mut counts, mut probabilities, mut total) = (vec![0_usize; experts], vec![0.0; experts], 0_usize);
    for token in tokens {
        total += 1;
        for expert in &token.experts {
            counts[*expert] += 1;
        }
        for (sum, probability) in probabilities.iter_mut().zip(token.probabilities()) {
            *sum += probability;
        }
    }
    let assignments: usize = counts.iter().sum();
    let ratio = |part: f64, whole: usize| if whole == 0 { 0.0 } else { part / whole as f64 };
    let load = |(tokens, probability): (usize, f64)| ExpertLoad {
        tokens,
        share: ratio(tokens as f64, assignments),
        mean_probability: ratio(probability, total),
    };
    counts.into_iter().zip(probabilities).map(load).collect()
}

/// Entropy of the shares, divided by that of equal shares.
pub(crate) fn load_entropy(load: &[ExpertLoad]) -> f64 {
    match load {
        [_] => 1.0,
        load => entropy(load.iter().map(|expert| expert.share)) / (load.len() as f64).ln(),
    }
}

/// Balance loss over all routers, which saw the same tokens.
pub(crate) fn balance_loss(
    routers: &[RouterObservation],
    experts: usize,
    experts_per_token: usize,
) -> BalanceLoss {
    // each router's weight in the sums
    let loss = |weight: fn(RouterPart) -> f64| -> f64 {
        let total: f64 = routers.iter().map(|router| weight(router.part)).sum();
        if total == 0.0 {
            return 0.0;
        }
        let mean = |value: fn(&ExpertLoad) -> f64, expert: usize| -> f64 {
            routers.iter().map(|router| weight(router.part) * value(&router.load[expert])).sum::<f64>()
                / total
        };
        let products = (0..experts)
            .map(|expert| mean(|load| load.share, expert) * mean(|load| load.mean_probability, expert));
        // a share is that of all assignments, of which a token has several
        products.sum::<f64>() * (experts * experts_per_token) as f64
    };
    BalanceLoss {
        all: loss(|_| 1.0),
        attention: loss(|part| if part == RouterPart::Attention { 1.0 } else { 0.0 }),
        mlp: loss(|part| if part == RouterPart::Mlp { 1.0 } else { 0.0 }),
        transformers: loss(|part| if part == RouterPart::Attention { 2.0 } else { 1.0 }),
    }
}

#[cfg(test)]
mod tests;
