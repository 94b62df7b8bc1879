//! The router of a mixture: which experts a token uses, and which rows each expert computes. After
//! `JetMoeTopKGating` of transformers' `modeling_jetmoe.py`.

use jetmoe_artifact::Profile;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::{self, Mixture};

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// Which experts each token uses.
///
/// A *slot* is one token's use of one expert: slot `token * k + s` belongs to the token's s-th best expert.
pub(super) struct TopK {
    /// Scores of all experts, `[tokens, experts]`, float32.
    pub(super) logits: Value,
    /// The best experts of each token, `[tokens, k]`.
    pub(super) experts: Value,
    /// Gate of each of them, `[tokens, k]`.
    pub(super) gates: Value,
}

/// Which rows each expert works on.
pub(super) struct TokenPermutation {
    /// Gate of each selected expert, `[tokens, k]`.
    gates: Value,
    /// Per expert, the slots that chose it, ascending: `[slots of this expert]`. Together they are all slots.
    pub(super) slots_of_expert: Vec<Value>,
    /// Per expert, the token of each of its slots.
    pub(super) tokens_of_expert: Vec<Value>,
}

impl TopK {
    /// Chooses the `k` best experts of every row of `hidden` `[tokens, hidden_size]`; the gates are a softmax over the
    /// chosen logits only.
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        layer: usize,
        mixture: Mixture,
        hidden: &Value,
    ) -> Result<Self> {
        let experts = config.num_local_experts;
        let weight = Weight::new(names::router(layer, mixture), vec![experts, config.hidden_size]);
        if builder.profile() == Profile::Native {
            let weight = builder.vector(weight);
            let [logits, experts, gates] = builder.route(hidden, &weight, config.num_experts_per_token)?;
            return Ok(TopK { logits, experts, gates });
        }
        let scheme = builder.unquantized_scheme();
        let logits = builder.linear(hidden, weight, scheme)?; // [tokens, experts]
        let logits = builder.cast(&logits, ElementType::Float32);
        let (best, experts) = builder.top_k(&logits, config.num_experts_per_token)?; // [tokens, k] each
        let gates = builder.softmax(&best)?; // [tokens, k]
        let gates = builder.cast(&gates, hidden.element);
        Ok(TopK { logits, experts, gates })
    }
}

impl TokenPermutation {
    /// The rows of each expert of a mixture.
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        layer: usize,
        mixture: Mixture,
        top_k: &TopK,
    ) -> Result<Self> {
        let slots = Shape(vec![top_k.experts.shape.elements()]);
        let chosen = builder.reshape(&top_k.experts, slots)?; // [slots]
        let slots_of_expert = (0..config.num_local_experts)
            .map(|expert| {
                let number = builder.integer(expert as i64);
                let uses = builder.equal(&chosen, &number)?; // [slots]
                let name = match mixture {
                    Mixture::Attention => "attention",
                    Mixture::Mlp => "mlp",
                };
                let count = Dimension::symbol(&format!("slots_of_{name}_expert_{layer}_{expert}"));
                builder.indices_of_true(&uses, &count) // [slots of this expert]
            })
            .collect::<Result<Vec<_>>>()?;
        let tokens_of_expert = match config.num_experts_per_token {
            1 => slots_of_expert.clone(),
            experts_per_token => {
                let divisor = builder.integer(experts_per_token as i64);
                slots_of_expert.iter().map(|slots| builder.div(slots, &divisor)).collect::<Result<_>>()?
            }
        };
        Ok(TokenPermutation { gates: top_k.gates.clone(), slots_of_expert, tokens_of_expert })
    }

    /// Scatters the experts' results back into the order of the slots. `results` holds per expert one row for each of
    /// its slots, `[slots of this expert, width]`; the result is `[slots, width]`. Every slot belongs to exactly one
    /// expert, so one scatter without addition does it.
    pub(super) fn scatter(&self, builder: &mut Builder, results: &[Value], sizes: &Sizes) -> Result<Value> {
        let rows = builder.concat(&results.iter().collect::<Vec<_>>(), 0)?; // [slots, width], by expert
        let slots = builder.concat(&self.slots_of_expert.iter().collect::<Vec<_>>(), 0)?; // [slots], by expert
        builder.scatter_rows(&rows, &slots, &sizes.slots)
    }

    /// The experts' results, `[slots of this expert, width]` each, gated and summed per token: `[tokens,
    /// width]`.
    pub(super) fn combine(&self, builder: &mut Builder, results: &[Value], sizes: &Sizes) -> Result<Value> {
        let slots = self.scatter(builder, results, sizes)?; // [slots, width]
        sum_of_experts(builder, &slots, &self.gates, sizes)
    }
}

/// The results of the slots, `[slots, width]`, times their gates `[tokens, k]`, summed per token: `[tokens, width]`.
pub(super) fn sum_of_experts(
    builder: &mut Builder,
    slots: &Value,
    gates: &Value,
    sizes: &Sizes,
) -> Result<Value> {
    let shape = Shape(vec![sizes.tokens.clone(), gates.dimension(1).clone(), slots.dimension(1).clone()]);
    let per_token = builder.reshape(slots, shape)?; // [tokens, k, width]
    let gates = builder.unsqueeze(gates, 2)?; // [tokens, k, 1]
    let weighted = builder.mul(&per_token, &gates)?;
    builder.sum(&weighted, 1) // [tokens, width]
}

/// Applies `compute` to every expert and its rows of `source`, given by `rows_of_expert`, each in its own scope.
pub(super) fn per_expert(
    builder: &mut Builder,
    source: &Value,
    rows_of_expert: &[Value],
    compute: impl Fn(&mut Builder, usize, &Value) -> Result<Value>,
) -> Result<Vec<Value>> {
    rows_of_expert
        .iter()
        .enumerate()
        .map(|(expert, rows)| {
            builder.scope(format!("experts.{expert}"), |builder| {
                let rows = builder.gather(source, rows)?; // [rows of this expert, width]
                compute(builder, expert, &rows)
            })
        })
        .collect()
}
