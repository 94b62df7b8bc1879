//! Compares every backend with the same expected results.
//!
//! An [`Expectation`] holds expected outputs, tensor by tensor: read from a golden file of transformers, or computed by the
//! Candle reference. [`compare`] runs a model in any backend and measures errors, agreement of tokens and routers, and the
//! greedy continuation, with the levels of [`Tolerance`]. [`Verifier`] does so for a graph of an artifact, and
//! [`evaluate`] measures quality on held-out text. This crate prints nothing.

mod backend;
mod comparison;
mod error;
mod evaluation;
mod expectation;
#[cfg(test)]
mod faulty;
mod golden;
mod reference;
mod report;
mod stored;
mod tolerance;
mod verification;

pub use backend::{BackendName, load};
pub use comparison::{Comparison, Greedy, TensorComparison, compare};
pub use error::{Error, Result};
pub use evaluation::{
    ClassificationQuality, Difference, EvaluationOptions, LanguageModelQuality, Quality, RouterAgreement,
    evaluate,
};
pub use expectation::Expectation;
pub use golden::read_golden;
pub use reference::{ReferenceBackend, reference_model, reference_model_of_graph};
pub use report::{REPORT_SCHEMA, VerificationReport};
pub use stored::StoredWeights;
pub use tolerance::Tolerance;
pub use verification::Verifier;
