//! Quantizes weights to integers of 4 or 8 bits with a scale per group.
//!
//! A matrix is stored as in checkpoints, `[outputs, inputs]`. A group is a run of consecutive weights of one row that share a
//! scale, and optionally a zero point. [`jetmoe_format::Scheme`] defines the values that codes stand for.
//!
//! * [`quantize_row`] quantizes each group on its own, to the nearest codes for a scale that [`Rounding`] chooses.
//! * [`Gptq`] quantizes one column after the other and compensates each error in the columns that follow, using statistics
//!   of the product's inputs ([`InputStatistics`]).
//!
//! This crate works on plain numbers. It depends on neither models nor files.

mod error;
mod gptq;
mod group;
mod quantize;
mod refinement;
mod rows;
mod statistics;

pub use error::{Error, Result};
pub use gptq::Gptq;
pub use group::Rounding;
pub use quantize::quantize_row;
pub use statistics::InputStatistics;
