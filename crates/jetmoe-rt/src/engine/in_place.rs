//! Sessions of graphs that update the cache in place: past and present are one buffer, with room for more tokens than it
//! holds, so that a step copies and allocates nothing of the cache's size.
//!
//! In such a cache the tokens of a sequence begin at place 0. The callers' padding may stand anywhere, so here the tokens
//! that count are moved together on the way in, and results back to their columns on the way out.

use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use jetmoe_artifact::{ElementType, InputName, OutputName, Signature};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn, s};

use super::contract::past_shape;
use super::{GraphSession, StepInputs, TensorMap, WantedLogits};
use crate::Result;

/// What such a session needs of a runtime.
pub(super) trait InPlaceEngine: fmt::Debug + Send {
    /// A part of the cache, `[batch, kv_heads, room, kv_channels]`.
    type Buffer: fmt::Debug + Send;

    /// Inputs and outputs of the graph.
    fn signature(&self) -> &Signature;

    /// A buffer of this element type and shape; what it holds does not matter.
    fn allocate(&self, element: ElementType, shape: &[usize]) -> Result<Self::Buffer>;

    /// What a buffer holds.
    fn read(&self, buffer: &Self::Buffer) -> Result<ArrayD<f32>>;

    /// Copies the first `tokens` tokens of a row of one buffer to a row of another, which may differ in batch and room.
    fn copy_row(
        &self,
        to: (&mut Self::Buffer, usize),
        from: (&Self::Buffer, usize),
        tokens: usize,
    ) -> Result<()>;

    /// Runs the graph over buffers that it updates.
    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<Self::Buffer>]) -> Result<Returned>;
}

/// What a call returned beside the cache, and how long the runtime took.
pub(super) type Returned = (Vec<(OutputName, ArrayD<f32>)>, Duration);

/// A part of the cache with the names that the graph reads and writes it by.
#[derive(Debug)]
pub(super) struct CacheBuffer<Buffer> {
    pub(super) past: InputName,
    pub(super) present: OutputName,
    pub(super) buffer: Buffer,
}

/// Inputs of one call, without padding in front.
pub(super) struct PackedInputs {
    /// `[rows, width]`
    pub(super) ids: Array2<i64>,
    /// `[rows, longest]`
    pub(super) mask: Array2<i64>,
    /// `[rows, width]`
    pub(super) positions: Array2<i64>,
    /// The value of `logits_to_keep`.
    pub(super) keep: i64,
}

/// A batch of sequences.
#[derive(Debug)]
pub(super) struct InPlaceSession<Engine: InPlaceEngine> {
    engine: Engine,
    /// None before the first step.
    cache: Option<Cache<Engine::Buffer>>,
    /// 1 where a token counts, `[batch, cached columns]`
    mask: Array2<i64>,
    /// How long the last step was in the runtime.
    engine_time: Option<Duration>,
    /// Room of the first buffers, in tokens of each sequence.
    first_room: usize,
}

/// Keys and values of every layer, in the order of the graph's inputs.
#[derive(Debug)]
struct Cache<Buffer> {
    buffers: Vec<CacheBuffer<Buffer>>,
    batch_size: usize,
    /// Tokens of a sequence that there is room for.
    room: usize,
}

/// What one call of the graph computes: the same number of new tokens for some of the sequences.
struct Call {
    /// The sequences.
    rows: Range<usize>,
    /// New tokens of each, those that only fill up included.
    width: usize,
}

/// New tokens of a sequence.
struct Row {
    /// Tokens that the cache holds.
    cached: usize,
    /// Columns of the step that hold a token that counts.
    columns: Vec<usize>,
}

impl<Engine: InPlaceEngine> InPlaceSession<Engine> {
    pub(super) fn new(engine: Engine, max_sequence_length: Option<usize>) -> Self {
        InPlaceSession {
            engine,
            cache: None,
            mask: Array2::zeros((0, 0)),
            engine_time: None,
            // a sequence that is full and waits in a batch gets one token more that nothing will see
            first_room: max_sequence_length.map_or(0, |most| most + 1),
        }
    }

    fn step(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let rows = rows(inputs);
        let needed = rows.iter().map(|row| row.cached + row.columns.len().max(1)).max().unwrap_or(1);
        self.make_room(rows.len(), needed)?;
        let widest = rows.iter().map(|row| row.columns.len()).max().unwrap_or(0).max(1);
        let begins = rows.iter().all(|row| row.cached == 0);
        let calls = if widest == 1 || begins || rows.len() == 1 {
            vec![Call { rows: 0..rows.len(), width: widest }]
        } else {
            // the operator continues several sequences by one token only
            let busy = rows.iter().enumerate().filter(|(_, row)| !row.columns.is_empty());
            busy.map(|(index, row)| Call { rows: index..index + 1, width: row.columns.len() }).collect()
        };
        self.engine_time = None;
        let mut results = TensorMap::new();
        for call in calls {
            let outputs = self.call(inputs, &rows, &call)?;
            for (name, output) in outputs {
                let columns = match (name, inputs.logits) {
                    (OutputName::Logits, WantedLogits::Last) => None,
                    _ => Some(inputs.input_ids.ncols()),
                };
                place(results.entry(name), output, &rows, &call, columns);
            }
        }
        Ok(results)
    }

    /// Runs the graph for some of the sequences. The outputs are those of the moved tokens, `[rows, width, ...]`, or of the
    /// last one only.
    fn call(
        &mut self,
        inputs: &StepInputs,
        rows: &[Row],
        call: &Call,
    ) -> Result<Vec<(OutputName, ArrayD<f32>)>> {
        let count = call.rows.len();
        let busy = &rows[call.rows.clone()];
        let longest = busy.iter().map(|row| row.cached + row.columns.len().max(1)).max().unwrap_or(1);
        let mut ids = Array2::<i64>::zeros((count, call.width));
        let mut positions = Array2::<i64>::zeros((count, call.width));
        let mut mask = Array2::<i64>::zeros((count, longest));
        for (index, row) in busy.iter().enumerate() {
            for (place, column) in row.columns.iter().enumerate() {
                ids[(index, place)] = inputs.input_ids[(call.rows.start + index, *column)];
                positions[(index, place)] = inputs.position_ids[(call.rows.start + index, *column)];
            }
            // a sequence without new tokens gets one that nothing will see
            let length = row.cached + row.columns.len().max(1);
            mask.slice_mut(s![index, ..length]).fill(1);
        }
        let all_full = busy.iter().all(|row| row.columns.len() == call.width || call.width == 1);
        // the last tokens of sequences of unequal length stand in several columns
        let keep = if all_full { inputs.logits } else { WantedLogits::All }.to_keep();

        let Some(cache) = &mut self.cache else { return Ok(Vec::new()) };
        let engine = &mut self.engine;
        let packed = PackedInputs { ids, mask, positions, keep };
        let (outputs, took) = if count < cache.batch_size {
            let mut alone = cache.row(engine, call.rows.start)?;
            let result = engine.run(&packed, &mut alone.buffers)?;
            cache.copy(engine, call.rows.start, &alone, 0, alone.room)?;
            result
        } else {
            engine.run(&packed, &mut cache.buffers)?
        };
        *self.engine_time.get_or_insert_default() += took;
        Ok(outputs)
    }

    /// Has buffers for so many sequences of so many tokens. What they hold is kept, unless it is of another batch.
    fn make_room(&mut self, batch_size: usize, needed: usize) -> Result<()> {
        let current = self.cache.as_ref().filter(|cache| cache.batch_size == batch_size);
        let room = match current {
            Some(cache) if cache.room >= needed => return Ok(()),
            // a copy now and then, not in every step
            Some(cache) => needed.max(2 * cache.room),
            None => self.first_room.max(needed + needed / 4 + 64),
        };
        let mut larger = Cache::new(&self.engine, batch_size, room)?;
        if let Some(cache) = current {
            for row in 0..batch_size {
                larger.copy(&self.engine, row, cache, row, cache.room)?;
            }
        }
        self.cache = Some(larger);
        Ok(())
    }
}

impl<Engine: InPlaceEngine> GraphSession for InPlaceSession<Engine> {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let tensors = self.step(inputs)?;
        self.mask = inputs.attention_mask.clone();
        Ok(tensors)
    }

    fn engine_time(&self) -> Option<Duration> {
        self.engine_time
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
            let held = self.engine.read(buffer)?; // [batch, kv_heads, room, kv_channels]
            Ok((*present, spread(&held, self.mask.view())))
        });
        copies.collect()
    }
}

impl<Buffer> Cache<Buffer> {
    fn new(engine: &impl InPlaceEngine<Buffer = Buffer>, batch_size: usize, room: usize) -> Result<Self> {
        let mut buffers = Vec::new();
        for input in &engine.signature().inputs {
            let present = match input.name {
                InputName::PastKey(layer) => OutputName::PresentKey(layer),
                InputName::PastValue(layer) => OutputName::PresentValue(layer),
                _ => continue,
            };
            let buffer = engine.allocate(input.element, &past_shape(input, batch_size, room))?;
            buffers.push(CacheBuffer { past: input.name, present, buffer });
        }
        Ok(Cache { buffers, batch_size, room })
    }

    /// A copy of one sequence, as a batch of its own.
    fn row(&self, engine: &impl InPlaceEngine<Buffer = Buffer>, row: usize) -> Result<Self> {
        let mut alone = Cache::new(engine, 1, self.room)?;
        alone.copy(engine, 0, self, row, self.room)?;
        Ok(alone)
    }

    /// Copies the first `tokens` tokens of a sequence.
    fn copy(
        &mut self,
        engine: &impl InPlaceEngine<Buffer = Buffer>,
        row: usize,
        from: &Self,
        from_row: usize,
        tokens: usize,
    ) -> Result<()> {
        for (to, from) in self.buffers.iter_mut().zip(&from.buffers) {
            engine.copy_row((&mut to.buffer, row), (&from.buffer, from_row), tokens)?;
        }
        Ok(())
    }
}

/// Copies the first `tokens` tokens of a row of one list of elements to a row of another. Shapes are those of the buffers.
pub(super) fn copy_row<T: Copy>(
    (to, to_shape, to_row): (&mut [T], &[usize], usize),
    (from, from_shape, from_row): (&[T], &[usize], usize),
    tokens: usize,
) {
    let (heads, room, channels) = (from_shape[1], from_shape[2], from_shape[3]);
    for head in 0..heads {
        let begin = |row: usize, room: usize| (row * heads + head) * room * channels;
        let (from, to) = (&from[begin(from_row, room)..], &mut to[begin(to_row, to_shape[2])..]);
        to[..tokens * channels].copy_from_slice(&from[..tokens * channels]);
    }
}

/// Which tokens of a step count, sequence by sequence.
fn rows(inputs: &StepInputs) -> Vec<Row> {
    let new = inputs.input_ids.ncols();
    let cached = inputs.attention_mask.ncols() - new;
    let rows = inputs.attention_mask.rows().into_iter().map(|mask| Row {
        cached: mask.slice(s![..cached]).iter().filter(|counts| **counts != 0).count(),
        columns: (0..new).filter(|column| mask[cached + column] != 0).collect(),
    });
    rows.collect()
}

/// Puts what a call returned for its moved tokens, `[rows, width, ...]`, to their columns of `[batch, columns, ...]`. Without
/// columns only the last token of each sequence is wanted, `[batch, 1, ...]`, and may be all that the call returned.
fn place(
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
        // nothing was moved, as in most steps: scores of a whole vocabulary need no second copy
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
        match columns {
            Some(_) => rows[row].columns.iter().enumerate().for_each(|(place, column)| put(*column, place)),
            None => put(0, rows[row].columns.len().min(returned).saturating_sub(1)),
        }
    }
}

/// A cache `[batch, kv_heads, room, kv_channels]` as callers know it: its tokens in their columns, and zeros for padding.
fn spread(held: &ArrayD<f32>, mask: ArrayView2<'_, i64>) -> ArrayD<f32> {
    let (heads, channels) = (held.shape()[1], held.shape()[3]);
    let mut spread = ArrayD::zeros(IxDyn(&[mask.nrows(), heads, mask.ncols(), channels]));
    for (row, mask) in mask.rows().into_iter().enumerate() {
        let columns = mask.iter().enumerate().filter(|(_, counts)| **counts != 0).map(|(column, _)| column);
        for (place, column) in columns.enumerate() {
            spread.slice_mut(s![row, .., column, ..]).assign(&held.slice(s![row, .., place, ..]));
        }
    }
    spread
}
