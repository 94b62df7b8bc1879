//! Rotary position embedding (<https://arxiv.org/abs/2104.09864>), half-split, on query and key. Mirrors
//! `JetMoeRotaryEmbedding` in transformers' `modeling_jetmoe.py`, with the frequency scalings of
//! `modeling_rope_utils.py`.

use std::f64::consts::TAU;

use candle_core::{D, DType, Device, Result, Tensor};
use jetmoe_checkpoint::{RopeParameters, RopeScaling};

/// Angles per position.
#[derive(Debug)]
pub(crate) struct Rotary {
    inverse_frequencies: Tensor, // [kv_channels / 2]
    magnitude: f64,
}

/// Cosines and sines of the tokens of one call.
#[derive(Debug)]
pub(crate) struct Rotation {
    cos: Tensor, // [batch, seq, 1, kv_channels]
    sin: Tensor, // [batch, seq, 1, kv_channels]
}

impl Rotary {
    pub(crate) fn new(parameters: &RopeParameters, kv_channels: usize) -> Result<Self> {
        // rounded to float32 once, here; angles, cosines and sines are float32
        let frequencies: Vec<f32> = inverse_frequencies(parameters, kv_channels)
            .into_iter()
            .map(|frequency| frequency as f32)
            .collect();
        let magnitude = match parameters.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        };
        Ok(Rotary { inverse_frequencies: Tensor::new(frequencies, &Device::Cpu)?, magnitude })
    }

    /// The rotation of tokens at `position_ids`, `[batch, seq]`.
    pub(crate) fn at(&self, position_ids: &Tensor) -> Result<Rotation> {
        let positions = position_ids.to_dtype(DType::F32)?.unsqueeze(2)?; // [batch, seq, 1]
        let half = positions.broadcast_mul(&self.inverse_frequencies)?; // [batch, seq, kv_channels / 2]
        let angles = Tensor::cat(&[&half, &half], 2)?.unsqueeze(2)?; // [batch, seq, 1, kv_channels]
        Ok(Rotation {
            cos: (angles.cos()? * self.magnitude)?, // [batch, seq, 1, kv_channels]
            sin: (angles.sin()? * self.magnitude)?, // [batch, seq, 1, kv_channels]
        })
    }
}

impl Rotation {
    /// Rotates every head of `x`, `[batch, seq, heads, kv_channels]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let first = x.narrow(D::Minus1, 0, half)?; // [batch, seq, heads, kv_channels / 2]
        let second = x.narrow(D::Minus1, half, half)?; // [batch, seq, heads, kv_channels / 2]
        let rotated = Tensor::cat(&[&second.neg()?, &first], D::Minus1)?; // [batch, seq, heads, kv_channels]
        x.broadcast_mul(&self.cos)? + rotated.broadcast_mul(&self.sin)? // [batch, seq, heads, kv_channels]
    }
}

/// One inverse frequency per pair of channels, `[kv_channels / 2]`.
fn inverse_frequencies(parameters: &RopeParameters, kv_channels: usize) -> Vec<f64> {
    let &RopeParameters { theta, ref scaling } = parameters;
    let width = kv_channels as f64;
    let frequencies = (0..kv_channels / 2).map(|pair| theta.powf(-((2 * pair) as f64) / width));
    match *scaling {
        RopeScaling::Default => frequencies.collect(),
        RopeScaling::Linear { factor } => frequencies.map(|frequency| frequency / factor).collect(),
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            truncate,
            attention_factor: _,
        } => {
            // index of the pair of channels, as a real number, that rotates `rotations` times within the trained context
            let pair_rotating = |rotations: f64| {
                width * (original_max_position_embeddings as f64 / (rotations * TAU)).ln()
                    / (2.0 * theta.ln())
            };
            let (first, last) = match (pair_rotating(beta_fast), pair_rotating(beta_slow)) {
                (fast, slow) if truncate => (fast.floor(), slow.ceil()),
                bounds => bounds,
            };
            let first = first.max(0.0);
            // transformers' bound: channels, not pairs of them
            let last = last.min(width - 1.0);
            // transformers' minimum length of the ramp
            let length = if first == last { 0.001 } else { last - first };
            frequencies
                .enumerate()
                .map(|(pair, frequency)| {
                    let stretched = ((pair as f64 - first) / length).clamp(0.0, 1.0);
                    frequency / factor * stretched + frequency * (1.0 - stretched)
                })
                .collect()
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => frequencies
            .map(|frequency| {
                let rotations = original_max_position_embeddings as f64 * frequency / TAU;
                let kept =
                    ((rotations - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                frequency / factor * (1.0 - kept) + frequency * kept
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
