//! Which experts each token takes.

use serde::Serialize;

use crate::{ObservedModel, ObservedToken};

/// The experts that the tokens of a batch took in every router.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routing {
    /// The model.
    pub model: ObservedModel,
    /// Experts of each router.
    pub experts: usize,
    /// Experts that a token takes in each router.
    pub experts_per_token: usize,
    /// The sequences of the batch, padding included.
    pub sequences: Vec<Vec<ObservedToken>>,
    /// The routers in the order in which they compute: attention and MLP of layer 0, of layer 1, and so on.
    pub routers: Vec<RouterObservation>,
    /// Balance loss of all tokens but padding.
    pub balance_loss: BalanceLoss,
}

/// The part of a layer that a router belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterPart {
    /// The mixture of attention heads.
    Attention,
    /// The mixture of MLPs.
    Mlp,
}

/// What one router did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterObservation {
    /// Its layer, from 0.
    pub layer: usize,
    /// Its part of the layer.
    pub part: RouterPart,
    /// Load of each expert, by its number.
    pub load: Vec<ExpertLoad>,
    /// Entropy of the shares in `load`, divided by the logarithm of the number of experts: 1 if all experts have the same
    /// share, 0 if one expert has all. 1 for a single expert.
    pub load_entropy: f64,
    /// Mean over the tokens of [`TokenRouting::entropy`]; 0 without tokens.
    pub mean_entropy: f64,
    /// The smallest [`TokenRouting::margin`]; `None` if no token has one.
    pub smallest_margin: Option<f32>,
    /// `tokens[sequence][token]`; `None` for padding.
    pub tokens: Vec<Vec<Option<TokenRouting>>>,
}

/// How much of the work an expert did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExpertLoad {
    /// Tokens that took it.
    pub tokens: usize,
    /// Its share of all assignments, from 0 to 1; those of all experts sum up to 1. 0 without tokens.
    pub share: f64,
    /// Mean over the tokens of its probability in the softmax over all experts. 0 without tokens.
    pub mean_probability: f64,
}

/// What a router decided for one token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenRouting {
    /// The experts that it took, the best first, as the graph selected them.
    pub experts: Vec<usize>,
    /// Weight of each of them in the result, as the graph computed it: a softmax over their logits.
    pub gates: Vec<f32>,
    /// Logits of all experts.
    pub logits: Vec<f32>,
    /// Entropy of the softmax over all experts, in nats: 0 for a certain choice, the logarithm of the number of experts if all
    /// are equal.
    pub entropy: f32,
    /// Logit of the last expert that was taken, less the best logit of the others. Rounding changes a choice with a small one.
    /// `None` if all experts are taken.
    pub margin: Option<f32>,
}

/// Balance loss by `load_balancing_loss_func` of transformers: experts times the sum over the experts of assignments per token
/// times mean probability. It is the number of experts per token if all experts have the same share and probability, and larger
/// otherwise. 0 without tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BalanceLoss {
    /// Over all routers, each counted once.
    pub all: f64,
    /// Over the routers of attention.
    pub attention: f64,
    /// Over the routers of the MLPs.
    pub mlp: f64,
    /// Over all routers, those of attention counted twice, as `JetMoeForCausalLM` of transformers 5.23 does.
    pub transformers: f64,
}
