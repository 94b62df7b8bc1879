//! Named levels of tolerance, each with its reason.

use jetmoe_artifact::{CacheFormat, ElementType, GraphRecord};
use jetmoe_rt::{Backend, LoadOptions};

/// Largest accepted difference from the expected results. Levels are named by their reason; tests contain no other number.
///
/// A graph is compared with the reference on the weights it holds, so quantization error is not part of the tolerance. With
/// arithmetic coarser than float32, a near-tie in the router can send a token to a different expert, so the median token
/// is compared instead of the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Float32 arithmetic in another order of summation. A correct implementation, written in NumPy from the model's
    /// definition alone, is within 2.5e-5 of transformers in every tensor of the golden cases; a wrong norm epsilon,
    /// the smallest mistake seen in the field, shows as 4.5e-3.
    Float32,
    /// Float16 arithmetic, which keeps 11 bits of every intermediate result, or a float16 cache.
    Float16,
    /// Keys and values rounded to 8 bits with a scale per head and token: by 0.7 to 1.6 % of their root mean square in the golden
    /// cases.
    Int8Cache,
    /// Products whose activations are rounded to 8 bits, group by group.
    RoundedActivations,
}

/// What a tensor's error is measured as, and how large it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// The largest absolute error.
    Absolute(f64),
    /// The largest absolute error as a share of the largest expected value.
    Relative(f64),
    /// The median, over the tokens, of the root mean square of a token's errors as a share of that of its expected
    /// values.
    MedianToken(f64),
}

impl Tolerance {
    /// The level of a graph in a backend that it was loaded into with these options.
    pub fn of(record: &GraphRecord, backend: &dyn Backend, options: &LoadOptions) -> Self {
        let is_quantized = record.stored.keys().any(|storage| storage.is_quantized());
        if is_quantized && backend.rounds_activations(record, options) {
            Tolerance::RoundedActivations
        } else if record.kv_cache == Some(CacheFormat::Int8) {
            Tolerance::Int8Cache
        } else if record.precision.activations() == ElementType::Float16
            || record.kv_cache == Some(CacheFormat::F16)
        {
            Tolerance::Float16
        } else {
            Tolerance::Float32
        }
    }

    /// Largest absolute error of logits whose largest is about 10, as those of the golden cases.
    pub fn logits_absolute(self) -> f64 {
        match self {
            Tolerance::Float32 => 2e-4,
            Tolerance::Float16 | Tolerance::Int8Cache | Tolerance::RoundedActivations => f64::INFINITY,
        }
    }

    /// Largest error of every other tensor, as a share of its largest expected value.
    pub fn relative(self) -> f64 {
        match self {
            Tolerance::Float32 => 2e-5,
            Tolerance::Float16 | Tolerance::Int8Cache | Tolerance::RoundedActivations => f64::INFINITY,
        }
    }

    /// Whether the greedy continuation must be the expected one, token by token.
    pub(crate) fn demands_equal_tokens(self) -> bool {
        self == Tolerance::Float32
    }

    /// The limit for logits whose largest is `scale`. Rounding grows with the values, so where they go far beyond the
    /// golden ones the share of other tensors counts: a model of full width with random weights has logits
    /// of 70.
    pub(crate) fn logits(self, scale: f64) -> Limit {
        const FAR_BEYOND_THE_GOLDEN_ONES: f64 = 20.0;
        match self {
            Tolerance::Float32 if scale > FAR_BEYOND_THE_GOLDEN_ONES => {
                Limit::Absolute(self.relative() * scale)
            }
            Tolerance::Float32 => Limit::Absolute(self.logits_absolute()),
            Tolerance::Float16 | Tolerance::Int8Cache | Tolerance::RoundedActivations => self.others(),
        }
    }

    /// The limit for every other tensor.
    pub(crate) fn others(self) -> Limit {
        match self {
            Tolerance::Float32 => Limit::Relative(self.relative()),
            Tolerance::Float16 => Limit::MedianToken(0.02),
            Tolerance::Int8Cache => Limit::MedianToken(0.05),
            Tolerance::RoundedActivations => Limit::MedianToken(0.12),
        }
    }
}
