//! The router of a mixture: which experts a row selects.

use std::cmp::Ordering;

use crate::activation::exp;
use crate::error::length;
use crate::norm::dot_products;
use crate::parallel::{ROWS_PER_TASK, parallel_for_each};
use crate::simd::{self, Simd, Work};
use crate::{Error, ExecContext, Result};

/// What a router computes for each row.
#[derive(Debug)]
pub struct Routing<'a> {
    /// Logits of all experts, `[rows, experts]`.
    pub logits: &'a mut [f32],
    /// The `k` experts with the largest logits, the best first, of equal ones the lower first, `[rows, k]`. NaN is the largest.
    pub experts: &'a mut [i64],
    /// Their gates, a softmax over the logits of the selected experts, `[rows, k]`.
    pub gates: &'a mut [f32],
}

/// The experts that each row of x `[rows, width]` selects, by a weight `[experts, width]`.
///
/// # Errors
/// Mismatched sizes, and `k` experts of fewer.
pub fn route(
    context: ExecContext<'_>,
    x: &[f32],
    weight: &[f32],
    width: usize,
    k: usize,
    routing: Routing<'_>,
) -> Result<()> {
    if width == 0 || weight.is_empty() {
        return Err(Error::Length { tensor: "the weight of a router", found: weight.len(), expected: 1 });
    }
    let (rows, experts) = (x.len() / width, weight.len() / width);
    length("x", x.len(), rows * width)?;
    length("the weight of a router", weight.len(), experts * width)?;
    if k == 0 || k > experts {
        return Err(Error::ExpertsPerRow { k, experts });
    }
    length("the logits", routing.logits.len(), rows * experts)?;
    length("the experts", routing.experts.len(), rows * k)?;
    length("the gates", routing.gates.len(), rows * k)?;
    let tasks = routing
        .logits
        .chunks_mut(ROWS_PER_TASK * experts)
        .zip(routing.experts.chunks_mut(ROWS_PER_TASK * k))
        .zip(routing.gates.chunks_mut(ROWS_PER_TASK * k))
        .zip(x.chunks(ROWS_PER_TASK * width));
    parallel_for_each(context.threads, tasks, |(((logits, experts_of_rows), gates), x)| {
        let rows = x.chunks_exact(width).zip(logits.chunks_exact_mut(experts));
        let selected = experts_of_rows.chunks_exact_mut(k).zip(gates.chunks_exact_mut(k));
        let mut order = Vec::with_capacity(experts);
        for ((x, logits), (selected, gates)) in rows.zip(selected) {
            simd::run(context.isa, Logits { x, weight, logits });
            select(logits, selected, gates, &mut order);
        }
    });
    Ok(())
}

/// The logits of one row.
struct Logits<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    logits: &'a mut [f32],
}

impl Work for Logits<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Logits { x, weight, logits } = self;
        let mut rows = weight.chunks_exact(x.len());
        let (fours, rest) = logits.as_chunks_mut::<4>();
        for logits in fours {
            if let (Some(a), Some(b), Some(c), Some(d)) = (rows.next(), rows.next(), rows.next(), rows.next())
            {
                *logits = dot_products(simd, x, [a, b, c, d]);
            }
        }
        for (logit, row) in rest.iter_mut().zip(rows) {
            [*logit] = dot_products(simd, x, [row]);
        }
    }
}

/// Selects the best experts of one row. `order` is memory.
fn select(logits: &[f32], experts: &mut [i64], gates: &mut [f32], order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..logits.len());
    // a stable sort leaves the lower of equal ones in front
    order.sort_by(|a, b| descending(logits[*a], logits[*b]));
    let largest = order.first().map_or(0.0, |best| logits[*best]);
    let mut sum = 0.0;
    for ((expert, gate), selected) in experts.iter_mut().zip(gates.iter_mut()).zip(&*order) {
        *expert = *selected as i64;
        // NaN for an infinite logit too, as in the formula
        let difference = logits[*selected] - largest;
        *gate = if difference.is_nan() { f32::NAN } else { exp(difference) };
        sum += *gate;
    }
    for gate in gates {
        *gate /= sum;
    }
}

/// From large to small, NaN first, −0 and 0 as equals.
fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}
