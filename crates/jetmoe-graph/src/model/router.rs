use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::{self, Mixture};

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// Which experts each token uses, and which rows each expert works on.
///
/// A *slot* is one token's use of one expert: slot `token * k + s` belongs to the token's s-th best expert.
pub(super) struct Routes {
    /// Scores of all experts, `[tokens, experts]`, float32.
    pub(super) logits: Value,
    /// Weight of each chosen expert, `[tokens, k]`.
    gates: Value,
    /// Per expert, the slots that chose it, ascending: `[slots of this expert]`. Together they are all slots.
    pub(super) slots_of_expert: Vec<Value>,
    /// Per expert, the token of each of its slots.
    pub(super) tokens_of_expert: Vec<Value>,
}

impl Routes {
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
        let storage = builder.unquantized_storage();
        let logits = builder.linear(hidden, weight, storage)?; // [tokens, experts]
        let logits = builder.cast(&logits, ElementType::Float32);
        let (best, chosen) = builder.top_k(&logits, config.num_experts_per_token)?; // [tokens, k] each
        let gates = builder.softmax(&best)?; // [tokens, k]
        let gates = builder.cast(&gates, hidden.element);
        let slots = Shape(vec![chosen.shape.elements()]);
        let chosen = builder.reshape(&chosen, slots)?; // [slots]
        let slots_of_expert = (0..experts)
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
        Ok(Routes { logits, gates, slots_of_expert, tokens_of_expert })
    }

    /// Brings the experts' results back into the order of the slots. `results` holds per expert one row for each of
    /// its slots, `[slots of this expert, width]`; the result is `[slots, width]`. Every slot belongs to exactly one
    /// expert, so one scatter without addition does it.
    pub(super) fn scatter(&self, builder: &mut Builder, results: &[Value], sizes: &Sizes) -> Result<Value> {
        let rows = builder.concat(&results.iter().collect::<Vec<_>>(), 0)?; // [slots, width], by expert
        let slots = builder.concat(&self.slots_of_expert.iter().collect::<Vec<_>>(), 0)?; // [slots], by expert
        builder.scatter_rows(&rows, &slots, &sizes.slots)
    }

    /// The experts' results, `[slots of this expert, width]` each, gated and summed per token, plus the mixture's bias:
    /// `[tokens, width]`.
    pub(super) fn combine(
        &self,
        builder: &mut Builder,
        results: &[Value],
        bias: Weight,
        sizes: &Sizes,
    ) -> Result<Value> {
        let slots = self.scatter(builder, results, sizes)?; // [slots, width]
        let experts_per_token = self.gates.dimension(1).clone();
        let shape = Shape(vec![sizes.tokens.clone(), experts_per_token, slots.dimension(1).clone()]);
        let per_token = builder.reshape(&slots, shape)?; // [tokens, k, width]
        let gates = builder.unsqueeze(&self.gates, 2)?; // [tokens, k, 1]
        let weighted = builder.mul(&per_token, &gates)?;
        let output = builder.sum(&weighted, 1)?; // [tokens, width]
        let bias = builder.vector(bias);
        builder.add(&output, &bias)
    }
}

/// What every expert makes of its rows: `compute` gets the number of the expert and the rows of `source` that
/// `rows_of_expert` names for it, and works in a scope of its own.
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
