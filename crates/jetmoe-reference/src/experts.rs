//! Linear layers with one matrix per expert. Mirrors `JetMoeParallelExperts` in transformers' `modeling_jetmoe.py`.

use candle_core::{Result, Tensor};

use crate::observer::ActivationHook;
use crate::router::TopK;

/// A linear layer with one matrix per expert.
#[derive(Debug)]
pub(crate) struct ExpertLinear {
    tensor: String,
    weight: Tensor, // [experts, out, in]
}

impl ExpertLinear {
    /// `tensor` is the weight's name in the checkpoint.
    pub(crate) fn new(tensor: &str, weight: Tensor) -> Self {
        ExpertLinear { tensor: tensor.to_owned(), weight }
    }

    /// Multiplies every row of `inputs`, `[assignments, in]`, with the matrix of its expert. An expert without rows is
    /// not computed.
    pub(crate) fn forward(
        &self,
        inputs: &Tensor,
        routing: &TopK,
        hook: &mut ActivationHook<'_>,
    ) -> Result<Tensor> {
        let mut outputs = Vec::with_capacity(routing.groups.len());
        for group in &routing.groups {
            let rows = inputs.index_select(&group.rows, 0)?; // [group, in]
            hook.call(&self.tensor, Some(group.expert), &rows)?;
            let weight = self.weight.get(group.expert)?; // [out, in]
            outputs.push(rows.matmul(&weight.t()?)?); // [group, out]
        }
        let sorted = Tensor::cat(&outputs, 0)?; // [assignments, out], sorted by expert
        sorted.index_select(&routing.inverse_permutation, 0) // [assignments, out], sorted by token
    }
}

#[cfg(test)]
mod tests;
