//! Rotary position embedding. After `JetMoeRotaryEmbedding` and `apply_rotary_pos_emb` of transformers' `modeling_jetmoe.py`, and
//! `modeling_rope_utils.py`.

use std::f64::consts::PI;

use jetmoe_artifact::{CacheUpdate, Profile};
use jetmoe_checkpoint::{ModelConfig, RopeParameters, RopeScaling};

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{Dimension, ElementType, Result, Shape};

/// Rotary position embedding in its half-split form (<https://arxiv.org/abs/2104.09864>): cosines and sines, computed
/// once and shared by all layers.
pub(super) struct Rotary {
    /// `[batch, sequence, 1, kv_channels / 2]`; `[tokens, kv_channels / 2]` for an operator of ONNX Runtime or our own.
    cos: Value,
    /// As `cos`.
    sin: Value,
    /// For ONNX Runtime's operator, the row of every token in `cos` and `sin`, `[batch, sequence]`.
    rows: Option<Value>,
}

impl Rotary {
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        position_ids: &Value,
        sizes: &Sizes,
        cache_update: CacheUpdate,
    ) -> Result<Self> {
        let (frequencies, factor) = inverse_frequencies(&config.rope, config.kv_channels);
        let frequencies = builder.floats("rotary/inverse_frequencies", frequencies); // [channels / 2]
        let positions = builder.cast(position_ids, ElementType::Float32); // [batch, seq]
        let positions = builder.unsqueeze(&positions, 2)?; // [batch, seq, 1]
        let positions = builder.unsqueeze(&positions, 3)?; // [batch, seq, 1, 1]
        let angles = builder.mul(&positions, &frequencies)?; // [batch, seq, 1, channels / 2]
        let (mut cos, mut sin) = (builder.cos(&angles)?, builder.sin(&angles)?);
        if factor != 1.0 {
            let factor = builder.float(factor);
            cos = builder.mul(&cos, &factor)?;
            sin = builder.mul(&sin, &factor)?;
        }
        let activations = builder.activations();
        let (cos, sin) = (builder.cast(&cos, activations), builder.cast(&sin, activations));
        if builder.profile() == Profile::Portable {
            return Ok(Rotary { cos, sin, rows: None });
        }
        let table = Shape(vec![sizes.tokens.clone(), Dimension::from(config.kv_channels / 2)]);
        if cache_update == CacheUpdate::InPlaceByMask {
            let (cos, sin) = (builder.reshape(&cos, table.clone())?, builder.reshape(&sin, table)?);
            return Ok(Rotary { cos, sin, rows: None });
        }
        let rows = builder.range(&0_i64.into(), &sizes.tokens)?; // [tokens]
        Ok(Rotary {
            cos: builder.reshape(&cos, table.clone())?,
            sin: builder.reshape(&sin, table)?,
            rows: Some(builder.reshape(&rows, sizes.per_token(&[]))?),
        })
    }

    /// Cosines and sines, for an operator that rotates.
    pub(super) fn tables(&self) -> (&Value, &Value) {
        (&self.cos, &self.sin)
    }

    /// Rotates heads `[batch, sequence, heads, kv_channels]`.
    pub(super) fn rotate(&self, builder: &mut Builder, heads: &Value, sizes: &Sizes) -> Result<Value> {
        if let Some(rows) = &self.rows {
            let width = heads.dimension(2) * heads.dimension(3);
            let side_by_side = Shape(vec![sizes.batch.clone(), sizes.sequence.clone(), width]);
            let operand = builder.reshape(heads, side_by_side)?; // [batch, seq, heads * channels]
            let rotated = builder.rotary_embedding(&operand, rows, &self.cos, &self.sin)?;
            return builder.reshape(&rotated, heads.shape.clone());
        }
        let (first, second) = builder.halves(heads)?; // [batch, seq, heads, channels / 2]
        let first_cos = builder.mul(&first, &self.cos)?;
        let second_sin = builder.mul(&second, &self.sin)?;
        let second_cos = builder.mul(&second, &self.cos)?;
        let first_sin = builder.mul(&first, &self.sin)?;
        let rotated_first = builder.sub(&first_cos, &second_sin)?;
        let rotated_second = builder.add(&second_cos, &first_sin)?;
        builder.concat(&[&rotated_first, &rotated_second], 3) // [batch, seq, heads, channels]
    }
}

/// Angle per position of each pair of channels, and the factor on cosines and sines, by the rules of transformers'
/// `modeling_rope_utils`. Computed in double precision and rounded once.
fn inverse_frequencies(rope: &RopeParameters, channels: usize) -> (Vec<f32>, f32) {
    let plain = (0..channels / 2).map(|pair| rope.theta.powf(-2.0 * pair as f64 / channels as f64));
    let mut factor_on_waves = 1.0;
    let scaled: Vec<f64> = match &rope.scaling {
        RopeScaling::Default => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            attention_factor,
            beta_fast,
            beta_slow,
            truncate,
        } => {
            factor_on_waves = *attention_factor;
            // the pair of channels that turns `rotations` times within the trained context
            let pair_with = |rotations: f64| {
                channels as f64 * (*original_max_position_embeddings as f64 / (rotations * 2.0 * PI)).ln()
                    / (2.0 * rope.theta.ln())
            };
            let (mut low, mut high) = (pair_with(*beta_fast), pair_with(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(channels as f64 - 1.0));
            if low == high {
                high += 0.001; // as transformers does, against a division by zero
            }
            plain
                .enumerate()
                .map(|(pair, frequency)| {
                    let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    frequency / factor * stretched + frequency * (1.0 - stretched)
                })
                .collect()
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let context = *original_max_position_embeddings as f64;
            plain
                .map(|frequency| {
                    let wavelength = 2.0 * PI / frequency;
                    if wavelength < context / high_freq_factor {
                        frequency
                    } else if wavelength > context / low_freq_factor {
                        frequency / factor
                    } else {
                        let kept =
                            (context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - kept) * frequency / factor + kept * frequency
                    }
                })
                .collect()
        }
    };
    (scaled.into_iter().map(|frequency| frequency as f32).collect(), factor_on_waves as f32)
}
