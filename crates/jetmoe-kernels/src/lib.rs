//! Products of rows with the matrices of the experts that the rows chose: what nearly all of a JetMoE token's time goes
//! into.
//!
//! A [`Weight`] holds one matrix per expert in a [`Layout`] that every instruction set reads in order: codes of 4 or 8 bits
//! with a scale per group, or bfloat16. It borrows its bytes, so a weight that is mapped from a file is never copied.
//!
//! * [`linear`] is `x · Wᵀ`, a weight of one matrix;
//! * [`expert_linear`] multiplies each row with the matrices of its experts, and [`expert_linear_sum`] brings what the
//!   experts of a token gave together, each times its gate;
//! * [`expert_mlp`] is a whole mixture of gated MLPs;
//! * [`look_up`] restores rows, for an embedding that shares its table with the head.
//!
//! Rows that meet codes are themselves rounded to 8 bits, 32 at a time with a scale of their own, and the products of
//! integers are exact; so the results of two [`InstructionSet`]s differ by the order of float32 additions only. A row
//! that holds an infinity or no number gives rows that are no numbers.
//!
//! Threads are those of the caller ([`Threads`]).

mod activation;
mod error;
mod instructions;
mod layout;
mod linear;
mod mlp;
mod product;
mod rounded;
mod routes;
mod sharing;
mod threads;
mod weight;

pub use activation::{Activation, exp};
pub use error::{Error, Result};
pub use instructions::InstructionSet;
pub use layout::{BLOCK_INPUTS, Element, GroupSize, Layout, PANEL_ROWS, RowOrder};
pub use linear::{Choices, Compute, expert_linear, expert_linear_sum, linear, look_up};
pub use mlp::{Mlp, expert_mlp};
pub use routes::Routes;
pub use threads::{CallingThread, Threads};
pub use weight::Weight;
