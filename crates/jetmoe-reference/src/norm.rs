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
