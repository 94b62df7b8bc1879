//! What a model does with a text: which token attends to which, and which experts each token takes.
//!
//! Both are read from outputs that are added to a copy of the graph in memory, so they are what the graph computes and no
//! formula. The artifact needs no further outputs for it.

mod comparison;
mod mask;
mod routing;
mod token;

pub use comparison::{ChangedChoice, RouterComparison, RoutingComparison};
pub use mask::{AttentionMask, MaskSource, SequenceMask};
pub use routing::{BalanceLoss, ExpertLoad, RouterObservation, RouterPart, Routing, TokenRouting};
pub use token::{ObservedModel, ObservedToken};
