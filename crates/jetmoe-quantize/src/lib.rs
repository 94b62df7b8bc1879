//! Quantizes weights to integers of 4 or 8 bits with a scale per group.
//!
//! A matrix lies as checkpoints store it, `[outputs, inputs]`, and a group is a run of consecutive weights of one row:
//! weights that are multiplied with different inputs of the same product and share a scale, and perhaps a zero point.
//! What a code stands for is defined by [`jetmoe_format::Scheme`].
//!
//! [`quantize_row`] quantizes each group by itself, to the nearest code of a scale that is found by
//! [`Rounding`]. [`Gptq`] rounds one weight after the other and makes up for each error in the weights that follow, by
//! what the inputs of the product look like. This crate knows numbers only, neither models nor files.

mod error;
mod gptq;
mod quantize;
mod refinement;
mod rounding;
mod statistics;

pub use error::{Error, Result};
pub use gptq::Gptq;
pub use quantize::{Rounding, quantize_row};
pub use statistics::InputStatistics;
