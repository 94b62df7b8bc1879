//! Quantizes weights to integers of 4 or 8 bits with a scale per group.
//!
//! A matrix is stored as in checkpoints, `[outputs, inputs]`. A group is a run of consecutive weights of one row that share a
//! scale, and optionally a zero point. [`jetmoe_format::Scheme`] defines the values that codes stand for.
//!
//! * [`quantize_row`] quantizes each group on its own, to the nearest codes for a scale that [`Rounding`] chooses.
//! * [`Gptq`] quantizes one column after the other and compensates each error in the columns that follow, using statistics
//!   of the product's inputs ([`InputStatistics`]).
//!
//! ```
//! use jetmoe_format::{ElementType, Scheme, WeightFormat};
//! use jetmoe_quantize::{Rounding, quantize_row};
//!
//! let scheme =
//!     Scheme { format: WeightFormat::Int4, group_size: 32, zero_points: false, scales: ElementType::Float32 };
//! let weights: Vec<f32> = (0..64).map(|index| index as f32 / 64.0).collect();
//! let (mut codes, mut scales, mut zero_points) = ([0; 64], [0.0; 2], [0; 2]);
//! quantize_row(&scheme, Rounding::Search, &weights, &mut codes, &mut scales, &mut zero_points)?;
//! # Ok::<(), jetmoe_quantize::Error>(())
//! ```
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
