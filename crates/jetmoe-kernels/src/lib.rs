//! Matrix products of rows with the experts that each row selected: the operation that takes nearly all of a JetMoE token's
//! time. And attention.
//!
//! A [`PackedWeight`](jetmoe_format::PackedWeight) holds one matrix per expert in a layout that every instruction set reads
//! sequentially: codes of 4 or 8 bits with a scale per group, or bfloat16. It borrows its bytes, so a weight in a mapped
//! file is never copied.
//!
//! * [`linear`] is `x · Wᵀ`, for a weight with one matrix; [`linear_float32`] is the same without quantized activations.
//! * [`expert_linear`] multiplies each row with the matrices of its experts; [`expert_linear_sum`] sums the results of a
//!   row's experts, each times its gate.
//! * [`expert_mlp`] is a whole mixture of gated MLPs.
//! * [`attention`] is softmax attention over a key/value cache, which it updates.
//! * [`rms_norm`] and [`route`] are what precedes the experts: the norm, and which experts a row selects.
//! * [`gather_rows`] dequantizes rows, for an embedding that shares its table with the head.
//!
//! For integer weights, activations of all products but `linear_float32` are dynamically quantized to 8 bits, 32 columns at a time with a scale of their own.
//! Integer products are exact, so the results of two instruction sets ([`Isa`]) differ by the order of float32 additions
//! only. A row that contains infinity or NaN yields NaN in that row only.
//!
//! The caller provides the threads ([`Threads`]).

mod activation;
mod aligned;
mod attention;
mod error;
mod isa;
mod linear;
mod linear_float32;
mod matmul;
mod mlp;
mod norm;
mod packed_input;
mod parallel;
pub mod roofline;
mod router;
mod simd;
mod threads;
mod token_permutation;

pub use activation::{Activation, exp};
pub use attention::{Attention, Cache, Sequences, attention, decode_cache_row};
pub use error::{Error, Result};
pub use isa::Isa;
pub use linear::{ExecContext, TopK, expert_linear, expert_linear_sum, gather_rows, linear};
pub use linear_float32::linear_float32;
pub use mlp::{Mlp, expert_mlp};
pub use norm::rms_norm;
pub use router::{Routing, route};
pub use threads::{CallingThread, ScopedThreads, Threads};
pub use token_permutation::TokenPermutation;
