//! Sessions of graphs that update the key/value cache in place: past and present are one buffer whose capacity exceeds the
//! tokens it holds, so that a step copies and allocates nothing of the cache's size.
//!
//! In such a cache the tokens of a sequence are contiguous and start at place 0. A caller's padding may be anywhere, so the
//! unmasked tokens are gathered before a step, and results are scattered back to their columns after it.

mod buffers;
mod slots;

use std::collections::btree_map::Entry;
use std::ops::Range;
use std::time::Duration;

use jetmoe_artifact::{CacheUpdate, OutputName};
use jetmoe_format::SEQUENCE_NUMBERS;
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn, s};

pub use self::buffers::{CacheBuffer, CachePlace, InPlaceGraph, PackedInputs, RunOutput, copy_tokens};
use self::buffers::{allocate_all, copy_all};
pub use self::slots::InPlaceSlots;
use crate::contract::{StepSizes, check_shapes};
use crate::{Error, GraphSession, LogitsToKeep, Result, StepInputs, TensorMap};

/// A batch of sequences.
#[derive(Debug)]
pub struct InPlaceSession<Graph: InPlaceGraph> {
    graph: Graph,
    /// None before the first step.
    cache: Option<Cache<Graph::Buffer>>,
    /// 1 for a token, 0 for padding, `[batch, cached columns]`
    mask: Array2<i64>,
    /// How long the last step took in the engine.
    backend_time: Option<Duration>,
    /// Least capacity of the first buffers, in tokens of each sequence.
    initial_capacity: usize,
}

/// Keys and values of every layer, in the order of the graph's inputs.
#[derive(Debug)]
struct Cache<Buffer> {
    buffers: Vec<CacheBuffer<Buffer>>,
    batch_size: usize,
    /// Tokens per sequence.
    capacity: usize,
}

/// What one call of the graph computes: the same number of new tokens for some of the sequences.
struct Call {
    /// The sequences.
    rows: Range<usize>,
    /// New tokens of each, padding included.
    new_tokens: usize,
    /// Whether the mask says which of the new tokens are padding, so that it can be in front. Otherwise it is at the end.
    by_mask: bool,
}

impl Call {
    /// The column of a sequence's first new token.
    fn first_column(&self, row: &Row) -> usize {
        if self.by_mask { self.new_tokens - row.columns.len() } else { 0 }
    }

    /// The mask of the call.
    fn mask(&self, rows: &[Row]) -> Array2<i64> {
        let rows = &rows[self.rows.clone()];
        if self.by_mask {
            let cached = rows.iter().map(|row| row.cached).max().unwrap_or(0);
            let mut mask = Array2::zeros((rows.len(), cached + self.new_tokens));
            for (index, row) in rows.iter().enumerate() {
                mask.slice_mut(s![index, ..row.cached]).fill(1);
                mask.slice_mut(s![index, cached + self.first_column(row)..]).fill(1);
            }
            return mask;
        }
        // a sequence without new tokens gets one that nothing attends to
        let length = |row: &Row| row.cached + row.columns.len().max(1);
        let mut mask = Array2::zeros((rows.len(), rows.iter().map(length).max().unwrap_or(1)));
        for (index, row) in rows.iter().enumerate() {
            mask.slice_mut(s![index, ..length(row)]).fill(1);
        }
        mask
    }
}

/// New tokens of a sequence.
struct Row {
    /// Tokens that the cache holds.
    cached: usize,
    /// Columns of the step with an unmasked token.
    columns: Vec<usize>,
}

impl<Graph: InPlaceGraph> InPlaceSession<Graph> {
    /// Starts a session without buffers. `max_sequence_length` is that of [`LoadOptions`](crate::LoadOptions).
    pub fn new(graph: Graph, max_sequence_length: Option<usize>) -> Self {
        InPlaceSession {
            graph,
            cache: None,
            mask: Array2::zeros((0, 0)),
            backend_time: None,
            // a full sequence that waits in a batch gets one more token, which nothing attends to
            initial_capacity: max_sequence_length.map_or(0, |most| most + 1),
        }
    }

    fn step(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        self.check_continuation(inputs)?;
        let rows = new_tokens_per_row(inputs);
        let needed = rows.iter().map(|row| row.cached + row.columns.len().max(1)).max().unwrap_or(1);
        self.reserve(rows.len(), needed)?;
        let most = rows.iter().map(|row| row.columns.len()).max().unwrap_or(0).max(1);
        let is_first = rows.iter().all(|row| row.cached == 0);
        let by_mask = self.graph.signature().cache_update == CacheUpdate::InPlaceByMask;
        let calls = if by_mask || most == 1 || is_first || rows.len() == 1 {
            vec![Call { rows: 0..rows.len(), new_tokens: most, by_mask }]
        } else {
            // GroupQueryAttention continues several sequences by one token only
            let active = rows.iter().enumerate().filter(|(_, row)| !row.columns.is_empty());
            let call = |(index, row): (usize, &Row)| Call {
                rows: index..index + 1,
                new_tokens: row.columns.len(),
                by_mask,
            };
            active.map(call).collect()
        };
        self.backend_time = None;
        let mut results = TensorMap::new();
        for call in calls {
            let outputs = self.call(inputs, &rows, &call)?;
            for (name, output) in outputs {
                let columns = match (name, inputs.logits) {
                    (OutputName::Logits, LogitsToKeep::Last) => None,
                    _ => Some(inputs.input_ids.ncols()),
                };
                let output = match name {
                    OutputName::AttendedKeys => scatter_keys(&output, &inputs.attention_mask, &call),
                    _ => output,
                };
                scatter_columns(results.entry(name), output, &rows, &call, columns);
            }
        }
        Ok(results)
    }

    /// Rejects a step that would overwrite a cache of another batch, or attend to tokens that the cache does not have.
    fn check_continuation(&self, inputs: &StepInputs) -> Result<()> {
        let (rows, new) = inputs.input_ids.dim();
        let cached = inputs.attention_mask.ncols().checked_sub(new);
        let is_batch = self.mask.ncols() == 0 || self.mask.nrows() == rows;
        let is_rectangular =
            inputs.attention_mask.nrows() == rows && inputs.position_ids.dim() == (rows, new);
        if is_batch && is_rectangular && cached == Some(self.mask.ncols()) {
            return Ok(());
        }
        let (sequences, tokens) = self.mask.dim();
        Err(Error::Continuation { rows, cached, cache: [sequences, tokens] })
    }

    /// Runs the graph for some of the sequences. The outputs are those of the gathered tokens, `[rows, new_tokens, ...]`, or
    /// of the last one only.
    fn call(
        &mut self,
        inputs: &StepInputs,
        rows: &[Row],
        call: &Call,
    ) -> Result<Vec<(OutputName, ArrayD<f32>)>> {
        let count = call.rows.len();
        let called = &rows[call.rows.clone()];
        let mut ids = Array2::<i64>::zeros((count, call.new_tokens));
        let mut positions = Array2::<i64>::zeros((count, call.new_tokens));
        for (index, row) in called.iter().enumerate() {
            let first = call.first_column(row);
            for (place, column) in row.columns.iter().enumerate() {
                ids[(index, first + place)] = inputs.input_ids[(call.rows.start + index, *column)];
                positions[(index, first + place)] = inputs.position_ids[(call.rows.start + index, *column)];
            }
        }
        let mask = call.mask(rows);
        let cached_tokens = mask.ncols();
        // without padding in front, the last tokens of sequences of unequal length are in different columns
        let is_last = |row: &Row| call.first_column(row) + row.columns.len() == call.new_tokens;
        let all_last = call.new_tokens == 1 || called.iter().all(is_last);
        let logits = if all_last { inputs.logits } else { LogitsToKeep::All };
        let logits_to_keep = logits.as_input();

        let Some(cache) = &mut self.cache else { return Ok(Vec::new()) };
        let graph = &mut self.graph;
        let cancellation = inputs.cancellation.clone();
        let sequences = Array2::zeros((0, SEQUENCE_NUMBERS));
        let packed = PackedInputs { ids, mask, positions, sequences, logits_to_keep, cancellation };
        let (outputs, time) = if count < cache.batch_size {
            let mut single = cache.copy_of_row(graph, call.rows.start)?;
            let result = graph.run(&packed, &mut single.buffers)?;
            cache.copy(graph, call.rows.start, &single, 0, single.capacity)?;
            result
        } else {
            graph.run(&packed, &mut cache.buffers)?
        };
        let sizes = StepSizes { batch_size: count, new_tokens: call.new_tokens, cached_tokens, logits };
        let shapes = outputs.iter().map(|(name, output)| (*name, output.shape().to_vec()));
        check_shapes(graph.signature(), sizes, shapes)?;
        *self.backend_time.get_or_insert_default() += time;
        Ok(outputs)
    }

    /// Reserves capacity for a number of sequences and tokens. Keeps the content, unless it belongs to another batch.
    fn reserve(&mut self, batch_size: usize, needed: usize) -> Result<()> {
        let current = self.cache.as_ref().filter(|cache| cache.batch_size == batch_size);
        let capacity = match current {
            Some(cache) if cache.capacity >= needed => return Ok(()),
            // double the capacity, so that copies are rare
            Some(cache) => needed.max(2 * cache.capacity),
            None => self.initial_capacity.max(needed + needed / 4 + 64),
        };
        let mut larger = Cache::new(&self.graph, batch_size, capacity)?;
        if let Some(cache) = current {
            for row in 0..batch_size {
                larger.copy(&self.graph, row, cache, row, cache.capacity)?;
            }
        }
        self.cache = Some(larger);
        Ok(())
    }
}

impl<Graph: InPlaceGraph> GraphSession for InPlaceSession<Graph> {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let tensors = self.step(inputs)?;
        self.mask = inputs.attention_mask.clone();
        Ok(tensors)
    }

    fn backend_time(&self) -> Option<Duration> {
        self.backend_time
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        let kept = tokens.min(self.mask.ncols());
        self.mask = self.mask.slice(s![.., ..kept]).to_owned();
        Ok(())
    }

    fn cache(&self) -> Result<TensorMap> {
        let Some(cache) = self.cache.as_ref().filter(|_| self.mask.ncols() > 0) else {
            return Ok(TensorMap::new());
        };
        let copies = cache.buffers.iter().map(|CacheBuffer { present, buffer, .. }| {
            let held = self.graph.read(buffer)?; // [batch, kv_heads, capacity, kv_channels]
            Ok((*present, scatter_rows(&held, self.mask.view())))
        });
        copies.collect()
    }
}

impl<Buffer> Cache<Buffer> {
    fn new(graph: &impl InPlaceGraph<Buffer = Buffer>, batch_size: usize, capacity: usize) -> Result<Self> {
        Ok(Cache { buffers: allocate_all(graph, batch_size, capacity)?, batch_size, capacity })
    }

    /// Copies one sequence into a batch of its own.
    fn copy_of_row(&self, graph: &impl InPlaceGraph<Buffer = Buffer>, row: usize) -> Result<Self> {
        let mut single = Cache::new(graph, 1, self.capacity)?;
        single.copy(graph, 0, self, row, self.capacity)?;
        Ok(single)
    }

    /// Copies the first `tokens` tokens of a sequence.
    fn copy(
        &mut self,
        graph: &impl InPlaceGraph<Buffer = Buffer>,
        row: usize,
        from: &Self,
        from_row: usize,
        tokens: usize,
    ) -> Result<()> {
        let first = |row| CachePlace { row, token: 0 };
        copy_all(graph, (&mut self.buffers, first(row)), (&from.buffers, first(from_row)), tokens)
    }
}

/// The unmasked tokens of a step, per sequence.
fn new_tokens_per_row(inputs: &StepInputs) -> Vec<Row> {
    let new = inputs.input_ids.ncols();
    let cached = inputs.attention_mask.ncols() - new;
    let rows = inputs.attention_mask.rows().into_iter().map(|mask| Row {
        cached: mask.slice(s![..cached]).iter().filter(|counts| **counts != 0).count(),
        columns: (0..new).filter(|column| mask[cached + column] != 0).collect(),
    });
    rows.collect()
}

/// Scatters what a call returned for its gathered tokens, `[rows, new_tokens, ...]`, to their columns of
/// `[batch, columns, ...]`. Without columns the result is that of each sequence's last token, `[batch, 1, ...]`, which may be
/// all that the call returned.
fn scatter_columns(
    result: Entry<'_, OutputName, ArrayD<f32>>,
    output: ArrayD<f32>,
    rows: &[Row],
    call: &Call,
    columns: Option<usize>,
) {
    let shape = [&[rows.len(), columns.unwrap_or(1)], &output.shape()[2..]].concat();
    let returned = output.shape()[1];
    let in_place = columns.is_none_or(|columns| rows.iter().all(|row| row.columns.len() == columns));
    if in_place && output.shape() == shape {
        // nothing was gathered, as in most steps: scores of a whole vocabulary need no second copy
        result.or_insert(output);
        return;
    }
    let result = result.or_insert_with(|| ArrayD::zeros(IxDyn(&shape)));
    for (index, row) in call.rows.clone().enumerate() {
        let output = output.index_axis(Axis(0), index);
        let mut result = result.index_axis_mut(Axis(0), row);
        let mut put = |column: usize, place: usize| {
            result.index_axis_mut(Axis(0), column).assign(&output.index_axis(Axis(0), place));
        };
        let first = call.first_column(&rows[row]);
        match columns {
            Some(_) => {
                rows[row].columns.iter().enumerate().for_each(|(place, column)| put(*column, first + place));
            }
            None => put(0, (first + rows[row].columns.len()).min(returned).saturating_sub(1)),
        }
    }
}

/// Scatters the last axis of what a call returned, `[rows, new_tokens, places]`, from places of the cache to the columns that
/// callers know the tokens by, with zeros for padding: `[rows, new_tokens, columns]`.
fn scatter_keys(output: &ArrayD<f32>, mask: &Array2<i64>, call: &Call) -> ArrayD<f32> {
    let (rows, tokens, places) = (output.shape()[0], output.shape()[1], output.shape()[2]);
    let mut scattered = ArrayD::zeros(IxDyn(&[rows, tokens, mask.ncols()]));
    for (index, row) in call.rows.clone().enumerate() {
        let columns = (0..mask.ncols()).filter(|column| mask[(row, *column)] != 0);
        for (place, column) in columns.take(places).enumerate() {
            scattered.slice_mut(s![index, .., column]).assign(&output.slice(s![index, .., place]));
        }
    }
    scattered
}

/// Scatters the tokens of a buffer, `[batch, kv_heads, capacity, kv_channels]`, to the columns that callers know them by,
/// with zeros for padding.
fn scatter_rows(held: &ArrayD<f32>, mask: ArrayView2<'_, i64>) -> ArrayD<f32> {
    let (heads, channels) = (held.shape()[1], held.shape()[3]);
    let mut scattered = ArrayD::zeros(IxDyn(&[mask.nrows(), heads, mask.ncols(), channels]));
    for (row, mask) in mask.rows().into_iter().enumerate() {
        let columns = mask.iter().enumerate().filter(|(_, counts)| **counts != 0).map(|(column, _)| column);
        for (place, column) in columns.enumerate() {
            scattered.slice_mut(s![row, .., column, ..]).assign(&held.slice(s![row, .., place, ..]));
        }
    }
    scattered
}
