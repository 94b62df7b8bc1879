//! What a model does with a text: which token attends to which, and which experts each token takes.
//!
//! Both are read from outputs that are added to a copy of the graph in memory, so they are what the graph computes and no
//! formula. The artifact needs no further outputs for it.
//!
//! ```no_run
//! use jetmoe_observe::{StepOptions, batch, encode, routing};
//! use jetmoe_rt::{LoadOptions, Model, ObservedValue};
//!
//! let options = LoadOptions::default().with_observed([ObservedValue::Routing]);
//! let model = Model::load("path/to/artifact", &options)?;
//! let tokens = batch(&model, &[encode(&model, "In the beginning")?])?;
//! for router in routing(&model, &tokens, &StepOptions::default())?.routers {
//!     println!("layer {}, {:?}: {:?}", router.layer, router.part, router.load);
//! }
//! # Ok::<(), jetmoe_observe::Error>(())
//! ```

mod comparison;
mod error;
mod mask;
mod routing;
mod statistics;
mod steps;
mod token;

pub use comparison::{ChangedChoice, RouterComparison, RoutingComparison, compare};
pub use error::{Error, Result};
pub use mask::{AttentionMask, MaskSource, SequenceMask, attention_mask};
pub use routing::{
    BalanceLoss, ExpertLoad, RouterObservation, RouterPart, Routing, TokenRouting, routing,
    routing_of_windows,
};
pub use steps::{StepOptions, batch, encode};
pub use token::{ObservedModel, ObservedToken};
