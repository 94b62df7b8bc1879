//! How the next token is chosen from the scores.

use jetmoe_checkpoint::GenerationConfig;

use crate::Result;
use crate::error::check;

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Sampling {
    /// The most probable token; of several equal ones the one with the lowest id, as in `torch.argmax`.
    #[default]
    Greedy,
    /// A draw from the model's distribution, as in `torch.multinomial`.
    Multinomial(Multinomial),
}

impl From<Multinomial> for Sampling {
    fn from(multinomial: Multinomial) -> Self {
        Sampling::Multinomial(multinomial)
    }
}

/// A draw from the distribution of the next token, or from a part of it.
///
/// The filters and their order are those of transformers 5.23 (`generation/utils.py`, `_get_logits_processor`): temperature,
/// `top_h`, `top_k`, `top_p`, `min_p`, `typical_p`, `epsilon_cutoff`, `eta_cutoff`, then a draw from the softmax of the
/// remaining logits. Every filter sees the distribution that the one before it left, and keeps at least one token.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Multinomial {
    /// Divisor of the logits, above 0 and finite; 1 by default. Below 1 sharpens the distribution, above 1 flattens it.
    pub temperature: f32,
    /// Keeps this many most probable tokens, at least 1, and others that are as probable as the last of them. `None`, the
    /// default, keeps all.
    pub top_k: Option<usize>,
    /// Keeps the smallest set of most probable tokens with at least this total probability, from 0 to 1.
    /// `None`, the default, keeps all.
    pub top_p: Option<f32>,
    /// Keeps tokens with at least this fraction of the most probable token's probability, from 0 to 1. `None`, the default,
    /// keeps all.
    pub min_p: Option<f32>,
    /// Keeps, of the 100 most probable tokens, the first whose terms of the entropy add up to at most this fraction of it; above
    /// 0 and at most 1. `None`, the default, keeps all.
    pub top_h: Option<f32>,
    /// Keeps the tokens whose information is nearest to the entropy, the fewest with at least this total probability; above 0
    /// and at most 1 (locally typical sampling, arXiv 2202.00666). `None`, the default, keeps all.
    pub typical_p: Option<f32>,
    /// Keeps tokens with at least this probability, and the most probable one; above 0 and below 1 (arXiv 2210.15191). `None`,
    /// the default, keeps all.
    pub epsilon_cutoff: Option<f32>,
    /// Keeps tokens with at least the lesser of this probability ε and √ε · exp(−entropy), and the most probable one; above 0
    /// and below 1 (arXiv 2210.15191). `None`, the default, keeps all.
    pub eta_cutoff: Option<f32>,
}

impl Default for Multinomial {
    fn default() -> Self {
        Multinomial {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            top_h: None,
            typical_p: None,
            epsilon_cutoff: None,
            eta_cutoff: None,
        }
    }
}

macro_rules! setters {
    ($($name:ident($field:ident: $type:ty);)*) => {$(
        #[doc = concat!("Sets [`Multinomial::", stringify!($field), "`].")]
        #[must_use]
        pub fn $name(mut self, $field: impl Into<Option<$type>>) -> Self {
            self.$field = $field.into();
            self
        }
    )*};
}

impl Multinomial {
    /// A draw from the whole distribution at a temperature.
    pub fn new(temperature: f32) -> Self {
        Multinomial { temperature, ..Self::default() }
    }

    /// The sampling settings of a checkpoint, whether or not it samples by itself (`do_sample`): what transformers'
    /// `generate(do_sample=True)` samples with. `top_k` is 50 unless given, and a `top_k` of 0 keeps all tokens.
    pub fn from_config(config: &GenerationConfig) -> Self {
        Multinomial {
            temperature: config.temperature.unwrap_or(1.0),
            top_k: Some(config.top_k.unwrap_or(50)).filter(|top_k| *top_k > 0),
            top_p: config.top_p,
            min_p: config.min_p,
            top_h: config.top_h,
            typical_p: config.typical_p,
            epsilon_cutoff: config.epsilon_cutoff,
            eta_cutoff: config.eta_cutoff,
        }
    }

    setters! {
        with_top_k(top_k: usize);
        with_top_p(top_p: f32);
        with_min_p(min_p: f32);
        with_top_h(top_h: f32);
        with_typical_p(typical_p: f32);
        with_epsilon_cutoff(epsilon_cutoff: f32);
        with_eta_cutoff(eta_cutoff: f32);
    }

    pub(super) fn validate(self) -> Result<()> {
        let temperature = self.temperature;
        check(
            "temperature",
            temperature,
            temperature > 0.0 && temperature.is_finite(),
            "a finite number above 0; for the most probable token use greedy decoding",
        )?;
        if let Some(top_k) = self.top_k {
            check("top_k", top_k, top_k >= 1, "at least 1; leave it out to keep all tokens")?;
        }
        let within = |option, value: Option<f32>, is_valid: fn(f32) -> bool, expected| match value {
            Some(value) => check(option, value, is_valid(value), expected),
            None => Ok(()),
        };
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let positive_share = |value: f32| value > 0.0 && value <= 1.0;
        let inside = |value: f32| value > 0.0 && value < 1.0;
        within("top_p", self.top_p, share, "from 0 to 1")?;
        within("min_p", self.min_p, share, "from 0 to 1")?;
        within("top_h", self.top_h, positive_share, "above 0 and at most 1")?;
        within("typical_p", self.typical_p, positive_share, "above 0 and at most 1")?;
        within("epsilon_cutoff", self.epsilon_cutoff, inside, "above 0 and below 1")?;
        within("eta_cutoff", self.eta_cutoff, inside, "above 0 and below 1")
    }
}
