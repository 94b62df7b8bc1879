//! Two routings compared.

use serde::Serialize;

use crate::{Error, Result, RouterObservation, RouterPart, Routing};

/// Two routings: of two texts, or of one text in two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoutingComparison {
    /// The first one.
    pub first: Routing,
    /// The second one.
    pub second: Routing,
    /// Whether both are of the same tokens, so that choices can be compared one by one.
    pub same_tokens: bool,
    /// Share of tokens and routers that took the same experts, in any order, from 0 to 1; `None` for other tokens.
    pub agreement: Option<f64>,
    /// The routers, in the order of [`Routing::routers`].
    pub routers: Vec<RouterComparison>,
}

/// One router in both routings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterComparison {
    /// Its layer, from 0.
    pub layer: usize,
    /// Its part of the layer.
    pub part: RouterPart,
    /// Share of each expert in the second routing, less that in the first.
    pub share_difference: Vec<f64>,
    /// Half the sum of the absolute values of `share_difference`: the share of assignments that went to another expert, at
    /// least. From 0 to 1.
    pub load_distance: f64,
    /// Share of tokens that took the same experts, in any order, from 0 to 1; `None` for other tokens.
    pub agreement: Option<f64>,
    /// The tokens that took other experts; empty for other tokens.
    pub changed: Vec<ChangedChoice>,
}

/// A token that took other experts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangedChoice {
    /// Its sequence, from 0.
    pub sequence: usize,
    /// Its column in the sequence, padding included, from 0.
    pub token: usize,
    /// Its experts in the first routing.
    pub first: Vec<usize>,
    /// Its experts in the second routing.
    pub second: Vec<usize>,
    /// Margin of the choice in the first routing.
    pub margin: Option<f32>,
}

/// Compares two routings.
///
/// # Errors
/// [`Error::OtherRouters`] for models with another number of routers or experts.
pub fn compare(first: Routing, second: Routing) -> Result<RoutingComparison> {
    let in_words =
        |routing: &Routing| format!("{} routers of {} experts", routing.routers.len(), routing.experts);
    if (first.routers.len(), first.experts) != (second.routers.len(), second.experts) {
        return Err(Error::OtherRouters { first: in_words(&first), second: in_words(&second) });
    }
    let same_tokens = ids(&first).eq(ids(&second))
        && first.sequences.iter().map(Vec::len).eq(second.sequences.iter().map(Vec::len));
    let pairs = first.routers.iter().zip(&second.routers);
    let routers: Vec<RouterComparison> =
        pairs.map(|(first, second)| compare_routers(first, second, same_tokens)).collect();
    // every router saw the same tokens
    let agreements = routers.iter().map(|router| router.agreement);
    let sum = agreements.sum::<Option<f64>>();
    let agreement = sum.filter(|_| !routers.is_empty()).map(|sum| sum / routers.len() as f64);
    Ok(RoutingComparison { same_tokens, agreement, routers, first, second })
}

/// Ids of the tokens, `None` for padding.
fn ids(routing: &Routing) -> impl Iterator<Item = Option<u32>> {
    routing.sequences.iter().flatten().map(|token| (!token.is_padding()).then_some(token.id))
}

fn compare_routers(
    first: &RouterObservation,
    second: &RouterObservation,
    same_tokens: bool,
) -> RouterComparison {
    let shares = first.load.iter().zip(&second.load);
    let share_difference: Vec<f64> = shares.map(|(first, second)| second.share - first.share).collect();
    let mut changed = Vec::new();
    let mut tokens = 0_u32;
    let both = first.tokens.iter().zip(&second.tokens).enumerate().filter(|_| same_tokens);
    for (sequence, (first, second)) in both {
        for (token, pair) in first.iter().zip(second).enumerate() {
            let (Some(first), Some(second)) = pair else { continue };
            tokens += 1;
            if sorted(&first.experts) != sorted(&second.experts) {
                changed.push(ChangedChoice {
                    sequence,
                    token,
                    first: first.experts.clone(),
                    second: second.experts.clone(),
                    margin: first.margin,
                });
            }
        }
    }
    RouterComparison {
        layer: first.layer,
        part: first.part,
        load_distance: share_difference.iter().map(|difference| difference.abs()).sum::<f64>() / 2.0,
        share_difference,
        agreement: same_tokens.then(|| 1.0 - changed.len() as f64 / f64::from(tokens.max(1))),
        changed,
    }
}

fn sorted(experts: &[usize]) -> Vec<usize> {
    let mut sorted = experts.to_vec();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests;
