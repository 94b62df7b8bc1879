//! Sessions of graphs that update the cache in place: past and present are one buffer, with room for more tokens than it
//! holds, so that a step copies and allocates nothing of the cache's size.
//!
//! In such a cache the tokens of a sequence begin at place 0. The callers' padding may stand anywhere, so here the tokens
//! that count are moved together on the way in, and results back to their columns on the way out.

use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use half::f16;
use jetmoe_artifact::{ElementType, InputName, OutputName};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn, s};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType};

use super::{Shared, int64_tensor, run_error, sizes, to_array};
use crate::Result;
use crate::engine::contract::past_shape;
use crate::engine::{GraphSession, StepInputs, TensorMap, WantedLogits};

/// A batch of sequences in ONNX Runtime.
#[derive(Debug)]
pub(super) struct InPlaceSession {
    shared: Arc<Shared>,
    binding: IoBinding,
    /// None before the first step.
    cache: Option<Cache>,
    /// 1 where a token counts, `[batch, cached columns]`
    mask: Array2<i64>,
    /// How long the last step was in ONNX Runtime.
    engine_time: Option<Duration>,
    /// Room of the first buffers, in tokens of each sequence.
    first_room: usize,
}

/// Keys and values of every layer, in the order of the graph's inputs.
#[derive(Debug)]
struct Cache {
    /// `[batch, kv_heads, room, kv_channels]` each
    buffers: Vec<(InputName, OutputName, DynTensor)>,
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

impl InPlaceSession {
    pub(super) fn start(shared: Arc<Shared>, max_sequence_length: Option<usize>) -> ort::Result<Self> {
        let binding = shared.session.lock().unwrap_or_else(PoisonError::into_inner).create_binding()?;
        let mask = Array2::zeros((0, 0));
        Ok(InPlaceSession {
            shared,
            binding,
            cache: None,
            mask,
            engine_time: None,
            // a sequence that is full and waits in a batch gets one token more that nothing will see
            first_room: max_sequence_length.map_or(0, |most| most + 1),
        })
    }

    fn step(&mut self, inputs: &StepInputs) -> ort::Result<TensorMap> {
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
    ) -> ort::Result<Vec<(OutputName, ArrayD<f32>)>> {
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
        let mut alone = (count < cache.batch_size).then(|| cache.row(call.rows.start)).transpose()?;
        self.binding.clear();
        self.binding.bind_input(InputName::InputIds.to_string(), &int64_tensor(&ids)?)?;
        self.binding.bind_input(InputName::AttentionMask.to_string(), &int64_tensor(&mask)?)?;
        self.binding.bind_input(InputName::PositionIds.to_string(), &int64_tensor(&positions)?)?;
        for input in &self.shared.signature.optional_inputs {
            let number = Tensor::from_array(([1_usize], vec![keep]))?;
            self.binding.bind_input(input.name.to_string(), &number)?;
        }
        let bound = alone.as_mut().unwrap_or(cache);
        for (past, present, buffer) in &mut bound.buffers {
            self.binding.bind_input(past.to_string(), buffer)?;
            self.binding.bind_output(present.to_string(), buffer)?;
        }
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        let others: Vec<OutputName> =
            self.shared.outputs.iter().copied().filter(|name| !name.is_cache()).collect();
        for name in &others {
            self.binding.bind_output_to_device(name.to_string(), &host)?;
        }
        let mut session = self.shared.session.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let mut outputs = session.run_binding(&self.binding)?;
        *self.engine_time.get_or_insert_default() += begun.elapsed();
        let mut arrays = Vec::new();
        for name in others {
            if let Some(value) = outputs.remove(name.to_string()) {
                arrays.push((name, to_array(&value)?));
            }
        }
        drop(outputs);
        if let Some(alone) = alone {
            cache.copy(call.rows.start, &alone, 0, alone.room)?;
        }
        Ok(arrays)
    }

    /// Has buffers for so many sequences of so many tokens. What they hold is kept, unless it is of another batch.
    fn make_room(&mut self, batch_size: usize, needed: usize) -> ort::Result<()> {
        let current = self.cache.as_ref().filter(|cache| cache.batch_size == batch_size);
        let room = match current {
            Some(cache) if cache.room >= needed => return Ok(()),
            // a copy now and then, not in every step
            Some(cache) => needed.max(2 * cache.room),
            None => self.first_room.max(needed + needed / 4 + 64),
        };
        let mut larger = Cache::new(&self.shared, batch_size, room)?;
        if let Some(cache) = current {
            for row in 0..batch_size {
                larger.copy(row, cache, row, cache.room)?;
            }
        }
        self.cache = Some(larger);
        Ok(())
    }
}

impl GraphSession for InPlaceSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let tensors = self.step(inputs).map_err(|error| run_error(&error))?;
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
        let copies = cache.buffers.iter().map(|(_, present, buffer)| {
            let held = to_array(buffer)?; // [batch, kv_heads, room, kv_channels]
            Ok((*present, spread(&held, self.mask.view())))
        });
        copies.collect::<ort::Result<TensorMap>>().map_err(|error| run_error(&error))
    }
}

impl Cache {
    fn new(shared: &Shared, batch_size: usize, room: usize) -> ort::Result<Self> {
        let mut buffers = Vec::new();
        for input in &shared.signature.inputs {
            let present = match input.name {
                InputName::PastKey(layer) => OutputName::PresentKey(layer),
                InputName::PastValue(layer) => OutputName::PresentValue(layer),
                _ => continue,
            };
            let element = match input.element {
                ElementType::Float16 => TensorElementType::Float16,
                ElementType::Float32 | ElementType::Int64 => TensorElementType::Float32,
            };
            let shape = past_shape(input, batch_size, room);
            let shape: Vec<i64> = shape.into_iter().map(|size| size as i64).collect();
            buffers.push((input.name, present, DynTensor::new(&Allocator::default(), element, shape)?));
        }
        Ok(Cache { buffers, batch_size, room })
    }

    /// A copy of one sequence, as a batch of its own.
    fn row(&self, row: usize) -> ort::Result<Cache> {
        let buffers = self.buffers.iter().map(|(past, present, buffer)| {
            let shape: Vec<i64> = [1].into_iter().chain(buffer.shape()[1..].iter().copied()).collect();
            let mut copy = DynTensor::new(&Allocator::default(), *buffer.data_type(), shape)?;
            copy_row((&mut copy, 0), (buffer, row), self.room)?;
            Ok((*past, *present, copy))
        });
        Ok(Cache { buffers: buffers.collect::<ort::Result<_>>()?, batch_size: 1, room: self.room })
    }

    /// Copies the first `tokens` tokens of a sequence.
    fn copy(&mut self, row: usize, from: &Cache, from_row: usize, tokens: usize) -> ort::Result<()> {
        for ((_, _, buffer), (_, _, other)) in self.buffers.iter_mut().zip(&from.buffers) {
            copy_row((buffer, row), (other, from_row), tokens)?;
        }
        Ok(())
    }
}

/// Copies the first `tokens` tokens of a row of one buffer, `[batch, kv_heads, room, kv_channels]`, to a row of another, which
/// may differ in batch and room.
fn copy_row(to: (&mut DynTensor, usize), from: (&DynTensor, usize), tokens: usize) -> ort::Result<()> {
    fn copy<T: PrimitiveTensorElementType + Copy>(
        (to, to_row): (&mut DynTensor, usize),
        (from, from_row): (&DynTensor, usize),
        tokens: usize,
    ) -> ort::Result<()> {
        let (shape, source) = from.try_extract_tensor::<T>()?;
        let shape = sizes(shape);
        let (heads, room, channels) = (shape[1], shape[2], shape[3]);
        let (shape, target) = to.try_extract_tensor_mut::<T>()?;
        let to_room = sizes(shape)[2];
        for head in 0..heads {
            let begin = |row: usize, room: usize| (row * heads + head) * room * channels;
            let (source, target) = (&source[begin(from_row, room)..], &mut target[begin(to_row, to_room)..]);
            target[..tokens * channels].copy_from_slice(&source[..tokens * channels]);
        }
        Ok(())
    }
    if *from.0.data_type() == TensorElementType::Float16 {
        copy::<f16>(to, from, tokens)
    } else {
        copy::<f32>(to, from, tokens)
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
