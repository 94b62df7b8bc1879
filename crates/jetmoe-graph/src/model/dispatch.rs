use jetmoe_artifact::ModelPart;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::Mixture;

use super::router::{Choice, Routes};
use crate::Result;
use crate::builder::{Builder, OwnStorage};

/// How tokens reach the experts of a mixture that they chose.
pub(super) enum Dispatch {
    /// By standard operators: each expert gathers its rows.
    PerExpert(Routes),
    /// By one of our own operators for all experts, with their matrices stored so.
    Own(OwnStorage),
}

impl Dispatch {
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        layer: usize,
        mixture: Mixture,
        choice: &Choice,
    ) -> Result<Self> {
        let part = match mixture {
            Mixture::Attention => ModelPart::Attention,
            Mixture::Mlp => ModelPart::Mlp,
        };
        Ok(match builder.own_storage(part, Some(layer))? {
            Some(storage) => Dispatch::Own(storage),
            None => Dispatch::PerExpert(Routes::new(builder, config, layer, mixture, choice)?),
        })
    }
}
