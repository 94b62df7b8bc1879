//! Two routings compared.

use serde::Serialize;

use crate::{RouterPart, Routing};

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
