//! Masks and routings of a size to choose, made from a seed: no model computes them.

use jetmoe_observe::{
    AttentionMask, BalanceLoss, ChangedChoice, ExpertLoad, MaskSource, ObservedModel, ObservedToken,
    RouterComparison, RouterObservation, RouterPart, Routing, RoutingComparison, SequenceMask, TokenRouting,
};

pub(crate) const EXPERTS: usize = 8;
const PER_TOKEN: usize = 2;

/// Words of a text, without meaning for a model. One is dangerous in a page, some are not Latin, one ends a line.
const TEXT: &str = "In the beginning the model reads a text . Every token goes through all layers , but not through all experts : \
                    a small router gives each token to two of eight experts , in attention and in the MLP . The others rest . \
                    Some experts take numbers like 1 , 2 and 3 ; others take names , verbs or the ends of sentences . \n \
                    </script><b> naïve 日本 Ω 😀 & \"quotes\" remain text . If a margin is small , rounding may turn the choice over , and \
                    the token takes another way from there on . \n";

pub(crate) fn model(precision: &str) -> ObservedModel {
    ObservedModel {
        backend: "ort 1.32.0".to_owned(),
        precision: precision.parse().unwrap(),
        profile: "portable".parse().unwrap(),
    }
}

pub(crate) fn tokens(count: usize, first: usize) -> Vec<ObservedToken> {
    let words: Vec<_> = TEXT.split(' ').filter(|word| !word.is_empty()).collect();
    let word = |position: usize| words[(first + position) % words.len()];
    (0..count)
        .map(|position| ObservedToken {
            id: words.iter().position(|other| *other == word(position)).unwrap() as u32 + 300,
            text: Some(match word(position) {
                mark if ".,:;\n".contains(mark) => mark.to_owned(),
                word => format!(" {word}"),
            }),
            position: Some(position),
            step: 0,
        })
        .collect()
}

/// A causal mask: `padding` first, then the sizes of the steps.
pub(crate) fn sequence(padding: usize, steps: &[usize]) -> SequenceMask {
    let count: usize = steps.iter().sum();
    let mut all = vec![ObservedToken { id: 0, text: None, position: None, step: 0 }; padding];
    let of_step = steps.iter().enumerate().flat_map(|(step, &size)| vec![step; size]);
    all.extend(
        tokens(count, 0).into_iter().zip(of_step).map(|(token, step)| ObservedToken { step, ..token }),
    );
    let visible = (0..all.len())
        .map(|query| (0..all.len()).map(|key| query >= padding && key >= padding && key <= query).collect())
        .collect();
    SequenceMask { tokens: all, visible }
}

pub(crate) fn mask(sequences: Vec<SequenceMask>) -> AttentionMask {
    AttentionMask { model: model("f32"), source: MaskSource::Bias, sequences }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}

fn choose(logits: Vec<f32>) -> TokenRouting {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let experts = order[..PER_TOKEN].to_vec();
    let best: Vec<f32> = experts.iter().map(|&expert| logits[expert]).collect();
    let entropy = softmax(&logits).iter().map(|p| if *p > 0.0 { -p * p.ln() } else { 0.0 }).sum();
    let margin = Some(logits[order[PER_TOKEN - 1]] - logits[order[PER_TOKEN]]);
    TokenRouting { experts, gates: softmax(&best), logits, entropy, margin }
}

/// A routing where equal tokens mostly take equal experts. `noise` changes the logits, as another precision would.
pub(crate) fn routing(count: usize, layers: usize, first: usize, precision: &str, noise: f32) -> Routing {
    let sequence = tokens(count, first);
    let mut routers = Vec::new();
    let mut noises = fastrand::Rng::with_seed(11);
    for layer in 0..layers {
        for part in [RouterPart::Attention, RouterPart::Mlp] {
            let choices: Vec<_> = sequence
                .iter()
                .map(|token| {
                    let seed = u64::from(token.id) * 1000 + (layer / 2) as u64 * 2 + part as u64;
                    let mut of_word = fastrand::Rng::with_seed(seed);
                    let place = (layer * 7919 + token.position.unwrap_or(0)) as u64 * 2 + part as u64;
                    let mut of_place = fastrand::Rng::with_seed(place);
                    let logits = (0..EXPERTS).map(|expert| {
                        let popular = if (expert + layer) % 5 == 0 { 0.6 } else { 0.0 };
                        let rounding = noise * (noises.f32() - 0.5);
                        3.0 * of_word.f32() + 1.2 * of_place.f32() + popular + rounding
                    });
                    choose(logits.collect())
                })
                .collect();
            routers.push(router(layer, part, choices));
        }
    }
    let balance_loss = BalanceLoss { all: 2.11, attention: 2.09, mlp: 2.13, transformers: 2.1 };
    Routing {
        model: model(precision),
        experts: EXPERTS,
        experts_per_token: PER_TOKEN,
        sequences: vec![sequence],
        routers,
        balance_loss,
    }
}

fn router(layer: usize, part: RouterPart, choices: Vec<TokenRouting>) -> RouterObservation {
    let load = (0..EXPERTS).map(|expert| {
        let tokens = choices.iter().filter(|choice| choice.experts.contains(&expert)).count();
        let share = tokens as f64 / (choices.len() * PER_TOKEN) as f64;
        ExpertLoad { tokens, share, mean_probability: share }
    });
    RouterObservation {
        layer,
        part,
        load: load.collect(),
        load_entropy: 0.97,
        mean_entropy: 1.6,
        smallest_margin: choices.iter().filter_map(|choice| choice.margin).min_by(f32::total_cmp),
        tokens: vec![choices.into_iter().map(Some).collect()],
    }
}

/// Two routings and the choices that differ.
pub(crate) fn comparison(first: Routing, second: Routing) -> RoutingComparison {
    let same_tokens = first.sequences == second.sequences;
    let routers: Vec<_> = first
        .routers
        .iter()
        .zip(&second.routers)
        .map(|(a, b)| {
            let shares = a.load.iter().zip(&b.load).map(|(a, b)| b.share - a.share).collect::<Vec<_>>();
            let pairs = a.tokens[0].iter().flatten().zip(b.tokens[0].iter().flatten()).enumerate();
            let changed =
                pairs.filter(|(_, (a, b))| same_tokens && set(a) != set(b)).map(|(token, (a, b))| {
                    let (first, second) = (a.experts.clone(), b.experts.clone());
                    ChangedChoice { sequence: 0, token, first, second, margin: a.margin }
                });
            RouterComparison {
                layer: a.layer,
                part: a.part,
                load_distance: shares.iter().map(|share| share.abs()).sum::<f64>() / 2.0,
                share_difference: shares,
                agreement: None,
                changed: changed.collect(),
            }
        })
        .collect();
    RoutingComparison { first, second, same_tokens, agreement: None, routers }
}

fn set(choice: &TokenRouting) -> Vec<usize> {
    let mut experts = choice.experts.clone();
    experts.sort_unstable();
    experts
}
