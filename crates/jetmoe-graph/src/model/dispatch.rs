//! How tokens reach their experts: by gather and scatter, in pieces, or by a custom operator. After `JetMoeParallelExperts` and
//! `JetMoeTopKGating` of transformers' `modeling_jetmoe.py`.

use jetmoe_artifact::{ModelPart, Profile};
use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::Mixture;
use jetmoe_format::Scheme;

use super::Sizes;
use super::pieces::Pieces;
use super::router::{TokenPermutation, TopK};
use crate::Result;
use crate::builder::Builder;

/// How tokens reach the experts of a mixture that they chose.
pub(super) enum Dispatch {
    /// By standard operators: each expert gathers its rows.
    PerExpert(TokenPermutation),
    /// By standard operators and those of ONNX Runtime, in one batch of equal pieces.
    Pieces(Pieces),
    /// By one custom operator for all experts, with their matrices packed by this scheme.
    Custom(Scheme),
}

impl Dispatch {
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        layer: usize,
        mixture: Mixture,
        top_k: &TopK,
        sizes: &Sizes,
    ) -> Result<Self> {
        let part = match mixture {
            Mixture::Attention => ModelPart::Attention,
            Mixture::Mlp => ModelPart::Mlp,
        };
        Ok(match builder.packed_scheme(part, Some(layer)) {
            Some(scheme) => Dispatch::Custom(scheme),
            None if builder.profile() == Profile::Gpu => Dispatch::Pieces(
                builder.scope("pieces", |builder| Pieces::new(builder, config, top_k, sizes))?,
            ),
            None => Dispatch::PerExpert(TokenPermutation::new(builder, config, layer, mixture, top_k)?),
        })
    }
}
