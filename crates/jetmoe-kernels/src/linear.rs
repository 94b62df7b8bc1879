//! Products of rows with the matrices of their experts.

use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::product::{Block, multiply, round};
use crate::rounded::{Rounded, Rows};
use crate::routes::Routes;
use crate::sharing::share;
use crate::weight::length;
use crate::{Error, InstructionSet, Result, RowOrder, Threads, Weight};

/// By what a product is computed.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    /// The instructions.
    pub instructions: InstructionSet,
    /// The threads that share the work.
    pub threads: &'a dyn Threads,
}

/// What rows chose.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a> {
    /// Numbers of experts, `[rows, per_row]`.
    pub experts: &'a [i64],
    /// Experts of each row.
    pub per_row: usize,
}

impl Choices<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.experts.len() / self.per_row.max(1)
    }

    pub(crate) fn routes(&self, weight: &Weight<'_>) -> Result<Routes> {
        length("the choices", self.experts.len(), self.rows() * self.per_row)?;
        Routes::new(self.experts, self.per_row, weight.layout().experts)
    }
}

/// Rows of a product whose results lie in memory at once, so that a long prompt with a large vocabulary needs no more room
/// than its result.
const ROWS_AT_ONCE: usize = 512;

/// `x · Wᵀ` for a weight of one matrix: from `[rows, inputs]` to `[rows, outputs]`.
///
/// # Errors
/// Sizes that do not fit together.
pub fn linear(compute: Compute<'_>, x: &[f32], weight: &Weight<'_>, y: &mut [f32]) -> Result<()> {
    as_stored(weight)?;
    let (inputs, outputs) = (weight.layout().inputs, weight.layout().outputs);
    let rows = x.len() / inputs;
    length("x", x.len(), rows * inputs)?;
    length("y", y.len(), rows * outputs)?;
    length("the matrices of a weight for all rows", weight.layout().experts, 1)?;
    for (x, y) in x.chunks(ROWS_AT_ONCE * inputs).zip(y.chunks_mut(ROWS_AT_ONCE * outputs)) {
        let routes = Routes::dense(y.len() / outputs);
        let prepared = prepare(compute, x, inputs, routes.slots(), 1, weight);
        let products = products(compute, &prepared, &routes, weight);
        each_row(compute, y, outputs, |row, y| from_panels(&products, &routes, row, y));
    }
    Ok(())
}

/// Each row times the matrices of its experts: from `[rows, inputs]` to `[rows, per_row, outputs]`.
///
/// # Errors
/// Sizes that do not fit together, and a choice of an expert that the weight does not have.
pub fn expert_linear(
    compute: Compute<'_>,
    x: &[f32],
    choices: Choices<'_>,
    weight: &Weight<'_>,
    y: &mut [f32],
) -> Result<()> {
    as_stored(weight)?;
    let (inputs, outputs) = (weight.layout().inputs, weight.layout().outputs);
    length("x", x.len(), choices.rows() * inputs)?;
    length("y", y.len(), choices.experts.len() * outputs)?;
    let routes = choices.routes(weight)?;
    let prepared = prepare(compute, x, inputs, routes.slots(), choices.per_row, weight);
    let products = products(compute, &prepared, &routes, weight);
    let places = routes.places();
    each_row(compute, y, outputs, |slot, y| from_panels(&products, &routes, places[slot], y));
    Ok(())
}

/// Every use of an expert times its matrix and its gate, summed for each row: from `[rows, per_row, inputs]` with gates
/// `[rows, per_row]` to `[rows, outputs]`.
///
/// # Errors
/// Sizes that do not fit together, and a choice of an expert that the weight does not have.
pub fn expert_linear_sum(
    compute: Compute<'_>,
    x: &[f32],
    choices: Choices<'_>,
    gates: &[f32],
    weight: &Weight<'_>,
    y: &mut [f32],
) -> Result<()> {
    as_stored(weight)?;
    let (inputs, outputs) = (weight.layout().inputs, weight.layout().outputs);
    length("x", x.len(), choices.experts.len() * inputs)?;
    length("the gates", gates.len(), choices.experts.len())?;
    length("y", y.len(), choices.rows() * outputs)?;
    let routes = choices.routes(weight)?;
    let prepared = prepare(compute, x, inputs, routes.slots(), 1, weight);
    sum(compute, &prepared, &routes, choices.per_row, gates, weight, y);
    Ok(())
}

/// Rows of a matrix of one expert, as float32: from ids `[rows]` to `[rows, inputs]`.
///
/// # Errors
/// Sizes that do not fit together, and an id of a row that there is none of.
pub fn look_up(ids: &[i64], weight: &Weight<'_>, y: &mut [f32]) -> Result<()> {
    as_stored(weight)?;
    let layout = weight.layout();
    length("y", y.len(), ids.len() * layout.inputs)?;
    for (id, y) in ids.iter().zip(y.chunks_exact_mut(layout.inputs)) {
        let row = usize::try_from(*id).ok().filter(|row| *row < layout.outputs);
        let row = row.ok_or(Error::NoSuchRow { found: *id, rows: layout.outputs })?;
        weight.restore(0, row / PANEL_ROWS, row % PANEL_ROWS, y);
    }
    Ok(())
}

/// Refuses a weight whose rows stand in its panels in another order than that of the result.
pub(crate) fn as_stored(weight: &Weight<'_>) -> Result<()> {
    match weight.layout().order {
        RowOrder::AsStored => Ok(()),
        RowOrder::Halves => Err(Error::Interleaved),
    }
}

/// Rows of `x`, in the order of the slots, as the weight takes them. Slot `s` takes row `s / slots_of_row`.
pub(crate) fn prepare(
    compute: Compute<'_>,
    x: &[f32],
    columns: usize,
    slots: &[usize],
    slots_of_row: usize,
    weight: &Weight<'_>,
) -> Rows {
    let mut rows = Rows::new(weight, slots.len());
    match &mut rows {
        Rows::Floats(floats) => {
            for (slot, row) in slots.iter().zip(floats.values.chunks_exact_mut(floats.columns)) {
                row[..columns].copy_from_slice(&x[slot / slots_of_row * columns..][..columns]);
            }
        }
        Rows::Rounded(rounded) => {
            let count = rounded.rows;
            if count == 0 {
                return rows;
            }
            let work = |(block, mut target): (usize, Block<'_>)| {
                let first = block * BLOCK_INPUTS;
                let width = BLOCK_INPUTS.min(columns - first);
                let mut gathered = vec![0.0; count * BLOCK_INPUTS];
                for (slot, gathered) in slots.iter().zip(gathered.chunks_exact_mut(BLOCK_INPUTS)) {
                    let row = slot / slots_of_row * columns;
                    gathered[..width].copy_from_slice(&x[row + first..][..width]);
                }
                round(compute.instructions, &gathered, &mut target);
            };
            let blocks = rounded.blocks().enumerate();
            // waking threads takes as long as rounding this many rows
            if count < 8 { blocks.for_each(work) } else { share(compute.threads, blocks, work) }
        }
    }
    rows
}

impl Rounded {
    /// Its blocks, to be filled one by one.
    pub(crate) fn blocks(&mut self) -> impl ExactSizeIterator<Item = Block<'_>> + Send {
        let (rows, factor) = (self.rows.max(1), self.sums_of.factor);
        let values = self.values.chunks_exact_mut(rows * BLOCK_INPUTS);
        let sums = self.sums.chunks_exact_mut(rows * self.sums_of.parts);
        let parts = values.zip(self.scales.chunks_exact_mut(rows)).zip(sums);
        parts.map(move |((values, scales), sums)| Block { values, scales, sums, factor })
    }
}

/// Products panel by panel, `[panels, slots, 32]`, the slots by expert: what threads write lies apart.
fn products(compute: Compute<'_>, rows: &Rows, routes: &Routes, weight: &Weight<'_>) -> Vec<f32> {
    let slots = routes.slots().len();
    let mut products = vec![0.0; weight.layout().panels() * slots * PANEL_ROWS];
    if slots == 0 {
        return products;
    }
    let panels = products.chunks_exact_mut(slots * PANEL_ROWS).enumerate();
    share(compute.threads, panels, |(panel, products)| {
        for (expert, first, count) in routes.busy() {
            let products = &mut products[first * PANEL_ROWS..][..count * PANEL_ROWS];
            multiply(compute.instructions, weight, (expert, panel), rows, (first, count), products);
        }
    });
    products
}

/// The products of all slots, gated and summed by row.
pub(crate) fn sum(
    compute: Compute<'_>,
    rows: &Rows,
    routes: &Routes,
    slots_of_row: usize,
    gates: &[f32],
    weight: &Weight<'_>,
    y: &mut [f32],
) {
    let products = products(compute, rows, routes, weight);
    let (places, slots) = (routes.places(), routes.slots().len());
    each_row(compute, y, weight.layout().outputs, |row, y| {
        let slots_here = row * slots_of_row..(row + 1) * slots_of_row;
        for (index, slot) in slots_here.enumerate() {
            let gate = gates[slot];
            for (panel, y) in y.chunks_mut(PANEL_ROWS).enumerate() {
                let products = &products[(panel * slots + places[slot]) * PANEL_ROWS..];
                for (y, product) in y.iter_mut().zip(products) {
                    *y = if index == 0 { gate * product } else { *y + gate * product };
                }
            }
        }
    });
}

/// A row of the products.
fn from_panels(products: &[f32], routes: &Routes, place: usize, y: &mut [f32]) {
    let slots = routes.slots().len();
    for (panel, y) in y.chunks_mut(PANEL_ROWS).enumerate() {
        y.copy_from_slice(&products[(panel * slots + place) * PANEL_ROWS..][..y.len()]);
    }
}

/// Does something for every row of a result.
fn each_row(compute: Compute<'_>, y: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    // rows that are worth waking a thread
    const ROWS_OF_A_TASK: usize = 8;
    let tasks = y.chunks_mut(ROWS_OF_A_TASK * width).enumerate();
    share(compute.threads, tasks, |(task, y)| {
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            work(task * ROWS_OF_A_TASK + row, y);
        }
    });
}
