//! Normalization before attention, before the MLP and before the heads. Mirrors `JetMoeRMSNorm` in transformers'
//! `modeling_jetmoe.py`.

use candle_core::{D, Result, Tensor};

/// Root mean square norm (<https://arxiv.org/abs/1910.07467>): x / √(mean(x²) + ε) · weight.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor, // [hidden]
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(weight: Tensor, epsilon: f64) -> Self {
        RmsNorm { weight, epsilon }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?; // [batch, seq, 1]
        let scale = (mean_square + self.epsilon)?.sqrt()?.recip()?; // [batch, seq, 1]
        let normed = x.broadcast_mul(&scale)?; // [batch, seq, hidden]
        normed.broadcast_mul(&self.weight) // [batch, seq, hidden]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_row_is_divided_by_its_root_mean_square_and_scaled_by_the_weight() {
        // mean squares: (9 + 16 + 0 + 0 + 2.75 · 4) / 4 with epsilon 2.75
        let norm = RmsNorm::new(Tensor::new(&[1.0_f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap(), 2.75);
        let x = Tensor::new(&[[[3.0_f32, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]], &Device::Cpu).unwrap();
        let normed = norm.forward(&x).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(normed, [[1.0, 8.0 / 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]);
    }
}
