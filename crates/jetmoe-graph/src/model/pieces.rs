//! Experts on a GPU: no size depends on which experts were selected, because the processor would have to wait for the GPU to
//! learn it.
//!
//! The slots are sorted by expert and divided into *pieces* of a fixed number of rows, each of one expert. A product multiplies
//! every piece with the matrix of its expert, in one batch. Few slots have pieces of one row: then it is each slot times its
//! expert's matrix. With `s` slots and `e` experts a piece has `r = ⌈s / e⌉` rows; an expert with `c` slots needs `⌈c / r⌉`
//! pieces, and all experts together fewer than `s / r + e ≤ 2e`, and at most `s`. Rows without a slot repeat slot 0, and
//! nothing reads their results.

use jetmoe_checkpoint::ModelConfig;
use jetmoe_format::Scheme;

use super::Sizes;
use super::router::{TopK, sum_of_experts};
use crate::builder::{Builder, Value};
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// The slots of a mixture, sorted by expert, in pieces.
pub(super) struct Pieces {
    /// Gate of each selected expert, `[tokens, k]`.
    gates: Value,
    /// The expert of each piece, `[pieces]`.
    experts: Value,
    /// The slot of each row of the pieces, `[pieces * rows]`.
    slot_of_row: Value,
    /// The token of each row of the pieces, `[pieces * rows]`.
    token_of_row: Value,
    /// The row of each slot, `[slots]`.
    row_of_slot: Value,
}

impl Pieces {
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        top_k: &TopK,
        sizes: &Sizes,
    ) -> Result<Self> {
        let experts = config.num_local_experts;
        let (pieces, rows_per_piece) = builder.piece_sizes(&sizes.slots, experts)?;
        let chosen = builder.reshape(&top_k.experts, Shape(vec![sizes.slots.clone()]))?; // [slots]

        // which slots each expert has, and how many
        let numbers = builder.named_integers("experts/numbers", (0..experts as i64).collect()); // [experts]
        let by_slot = builder.unsqueeze(&chosen, 1)?; // [slots, 1]
        let uses = builder.equal(&by_slot, &numbers)?; // [slots, experts]
        let uses = builder.cast(&uses, ElementType::Int64);
        let uses_so_far = builder.cumulative_sum(&uses, 0)?; // [slots, experts]
        let place = builder.mul(&uses_so_far, &uses)?; // [slots, experts]
        let place = builder.sum(&place, 1)?; // [slots], of the slot among those of its expert, from 1
        let one = builder.integer(1);
        let place = builder.sub(&place, &one)?;
        let counts = builder.sum(&uses, 0)?; // [experts]

        // the number of rows once more, computed from data: a size would have to be copied to the GPU
        let rows = {
            let slots = builder.sum(&counts, 0)?; // []
            let (rounding, experts) = (builder.integer(experts as i64 - 1), builder.integer(experts as i64));
            let rows = builder.add(&slots, &rounding)?;
            let rows = builder.div(&rows, &experts)?;
            builder.maximum(&rows, &one)? // []
        };
        let pieces_of_expert = builder.add(&counts, &rows)?; // [experts]
        let pieces_of_expert = builder.sub(&pieces_of_expert, &one)?;
        let pieces_of_expert = builder.div(&pieces_of_expert, &rows)?;
        let ends = builder.cumulative_sum(&pieces_of_expert, 0)?; // [experts], the piece behind each expert's last
        let starts = builder.sub(&ends, &pieces_of_expert)?; // [experts]

        let row_of_slot = builder.gather(&starts, &chosen)?; // [slots]
        let row_of_slot = builder.mul(&row_of_slot, &rows)?;
        let row_of_slot = builder.add(&row_of_slot, &place)?;
        let slots = builder.range(&0_i64.into(), &sizes.slots)?; // [slots]
        let all_rows = &pieces * &rows_per_piece;
        let slot_of_row = builder.scatter_integers(&slots, &row_of_slot, &all_rows)?; // [pieces * rows]
        let token_of_row = match config.num_experts_per_token {
            1 => slot_of_row.clone(),
            experts_per_token => {
                let divisor = builder.integer(experts_per_token as i64);
                builder.div(&slot_of_row, &divisor)?
            }
        };

        // as many experts end before a piece as its own number; pieces that are not used take the last expert
        let piece = builder.range(&0_i64.into(), &pieces)?; // [pieces]
        let piece = builder.unsqueeze(&piece, 1)?; // [pieces, 1]
        let ended = builder.less_or_equal(&ends, &piece)?; // [pieces, experts]
        let ended = builder.cast(&ended, ElementType::Int64);
        let ended = builder.sum(&ended, 1)?; // [pieces]
        let last = builder.integer(experts as i64 - 1);
        let expert_of_piece = builder.minimum(&ended, &last)?; // [pieces]
        Ok(Pieces {
            gates: top_k.gates.clone(),
            experts: expert_of_piece,
            slot_of_row,
            token_of_row,
            row_of_slot,
        })
    }

    /// The rows of the pieces from `hidden` `[tokens, width]`: `[pieces, rows, width]`.
    pub(super) fn of_tokens(&self, builder: &mut Builder, hidden: &Value) -> Result<Value> {
        let rows = builder.gather(hidden, &self.token_of_row)?; // [pieces * rows, width]
        self.divided(builder, &rows)
    }

    /// The rows of the pieces from `values` `[slots, width]`: `[pieces, rows, width]`.
    pub(super) fn of_slots(&self, builder: &mut Builder, values: &Value) -> Result<Value> {
        let rows = builder.gather(values, &self.slot_of_row)?; // [pieces * rows, width]
        self.divided(builder, &rows)
    }

    fn divided(&self, builder: &mut Builder, rows: &Value) -> Result<Value> {
        let (pieces, rows_per_piece) = (self.experts.dimension(0).clone(), Builder::rows_per_piece());
        builder.reshape(rows, Shape(vec![pieces, rows_per_piece, rows.dimension(1).clone()]))
    }

    /// Every row times the transposed matrix of its piece's expert, `[pieces, rows, outputs]`; `weight` is `[experts, outputs,
    /// inputs]`.
    pub(super) fn product(
        &self,
        builder: &mut Builder,
        rows: &Value,
        weight: Weight,
        scheme: Scheme,
    ) -> Result<Value> {
        builder.product_of_experts(rows, &self.experts, weight, scheme)
    }

    /// The results `[pieces, rows, width]` in the order of the slots, `[slots, width]`.
    pub(super) fn restored(&self, builder: &mut Builder, results: &Value) -> Result<Value> {
        let rows: Dimension = results.dimension(0) * results.dimension(1);
        let rows = builder.reshape(results, Shape(vec![rows, results.dimension(2).clone()]))?; // [pieces * rows, width]
        builder.gather(&rows, &self.row_of_slot) // [slots, width]
    }

    /// The results `[pieces, rows, width]`, gated and summed per token: `[tokens, width]`.
    pub(super) fn combine(&self, builder: &mut Builder, results: &Value, sizes: &Sizes) -> Result<Value> {
        let slots = self.restored(builder, results)?; // [slots, width]
        sum_of_experts(builder, &slots, &self.gates, sizes)
    }
}
