//! Attention mask: causal, without padding, as a bias on the attention scores. Mirrors `create_causal_mask` as used in
//! transformers' `modeling_jetmoe.py`.

use candle_core::{DType, Device, Result, Tensor};

/// Bias on attention scores, `[batch, 1, 1, seq, cached + seq]`: 0 where the query may attend to the key, else the
/// smallest float32. A query attends to keys up to its own position whose `attention_mask`, `[batch, cached + seq]`, is 1.
/// The bias is finite, so that the query of a padding token, which attends to no key, does not give NaN.
pub(crate) fn attention_bias(attention_mask: &Tensor, cached: usize) -> Result<Tensor> {
    let (batch, total) = attention_mask.dims2()?;
    let sequence = total - cached;
    let keys = Tensor::arange(0, total as i64, &Device::Cpu)?.unsqueeze(0)?; // [1, cached + seq]
    let queries = Tensor::arange(cached as i64, total as i64, &Device::Cpu)?.unsqueeze(1)?; // [seq, 1]
    let causal = keys.broadcast_le(&queries)?; // [seq, cached + seq]
    let is_token = attention_mask.to_dtype(DType::U8)?.unsqueeze(1)?; // [batch, 1, cached + seq]
    let visible = causal.broadcast_mul(&is_token)?; // [batch, seq, cached + seq]
    let zero = Tensor::zeros((batch, sequence, total), DType::F32, &Device::Cpu)?; // [batch, seq, cached + seq]
    let least = Tensor::full(f32::MIN, (batch, sequence, total), &Device::Cpu)?; // [batch, seq, cached + seq]
    visible.where_cond(&zero, &least)?.reshape((batch, 1, 1, sequence, total)) // [batch, 1, 1, seq, cached + seq]
}

#[cfg(test)]
mod tests;
