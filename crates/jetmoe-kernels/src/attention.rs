//! Causal softmax attention over a key/value cache, which a step updates in place.
//!
//! A step rotates its queries and keys, writes its keys and values behind the cached ones, and reads every key and value of a
//! head once for all query heads that share it. Queries attend to what the cache holds: a new token's key, too, as it is
//! stored.
//!
//! The result of a token depends on its query and on the keys and values before it, whatever else is computed in the step: on
//! how many tokens are computed at once, on other sequences, and on the number of threads, it does not.

mod products;
mod rows;
mod tile;

use jetmoe_format::{CacheFormat, SEQUENCE_NUMBERS};

pub use self::rows::decode_cache_row;
use self::tile::{Merge, PART_KEYS, Query, Rotary, TILE_QUERIES, Task, Write, result_width};
use crate::error::length;
use crate::linear::for_each_row;
use crate::parallel::parallel_for_each;
use crate::{Error, ExecContext, Result, simd};

/// The inputs of a step.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// How the cache stores keys and values.
    pub format: CacheFormat,
    /// Key heads.
    pub kv_heads: usize,
    /// Numbers of a head, even.
    pub channels: usize,
    /// Query heads, `[tokens, slots, kv_heads, channels]`: head j of every slot attends to key head j.
    pub queries: &'a [f32],
    /// Keys and values of the tokens, `[tokens, 2, kv_heads, channels]`.
    pub keys_and_values: &'a [f32],
    /// Cosines of the tokens' rotary angles, `[tokens, channels / 2]`.
    pub cos: &'a [f32],
    /// Sines of the tokens' rotary angles, `[tokens, channels / 2]`.
    pub sin: &'a [f32],
    /// Which of the tokens belong to which sequence.
    pub sequences: Sequences<'a>,
}

/// The sequences of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequences<'a> {
    /// Every sequence of the cache has as many of the tokens, of which some are padding.
    Masked {
        /// Number of sequences.
        batch: usize,
        /// 0 for padding, `[batch, cached and new columns]`. The cache of a sequence holds as many tokens as there are others in
        /// its first columns; the last columns are those of the tokens of the step.
        mask: &'a [i64],
    },
    /// The tokens are those of some sequences of the cache, one after the other: `[sequences, 3]` with the sequence's row of the
    /// cache, how many tokens it holds, and how many of the step are its own. A row may come again, to continue what came before.
    Listed(&'a [i64]),
}

/// Both parts of a cache, `[batch, kv_heads, capacity, row bytes]` each, the tokens of a sequence from place 0 on.
#[derive(Debug)]
pub struct Cache<'a> {
    /// Rotated keys.
    pub keys: &'a mut [u8],
    /// Values.
    pub values: &'a mut [u8],
    /// Number of sequences.
    pub batch: usize,
    /// Tokens of a sequence that it has capacity for.
    pub capacity: usize,
}

/// A sequence of a step.
struct Sequence {
    /// Its row of the cache.
    row: usize,
    /// Tokens that its cache holds before the step.
    cached: usize,
    /// Its new tokens, without padding.
    tokens: Vec<usize>,
    queries: Vec<Query>,
    /// Position of its first query among those of all sequences.
    first_query: usize,
}

/// Computes attention and updates the cache: `[tokens, slots, kv_heads, channels]`. Padding gets zeros and is not cached.
///
/// # Errors
/// Mismatched sizes, or a cache with too little capacity for the tokens. The cache is then unchanged.
pub fn attention(
    context: ExecContext<'_>,
    inputs: &Attention<'_>,
    cache: &mut Cache<'_>,
    y: &mut [f32],
) -> Result<()> {
    let step = Step::new(inputs, cache, y.len())?;
    if step.sequences.is_empty() {
        return Ok(());
    }
    step.write(context, cache);
    step.attend(context, cache, y);
    Ok(())
}

/// Where the tokens of a sequence are: in its row of the cache, and in the step.
struct Place {
    row: usize,
    cached: usize,
    tokens: Vec<usize>,
}

/// The sequences of a batch with padding.
fn places_by_mask((batch, mask): (usize, &[i64]), rows: usize, tokens: usize) -> Result<Vec<Place>> {
    let (new, columns) = (tokens / batch.max(1), mask.len() / batch.max(1));
    length("the tokens of all sequences", tokens, batch * new)?;
    length("the attention mask", mask.len(), batch * columns.max(new))?;
    // a batch without tokens may be of any size
    if tokens == 0 {
        return Ok(Vec::new());
    }
    length("the sequences of the cache", rows, batch)?;
    let place = |row: usize| {
        let (before, after) = mask[row * columns..][..columns].split_at(columns - new);
        let is_token = |(index, column): (usize, &i64)| (*column != 0).then_some(row * new + index);
        Place {
            row,
            cached: before.iter().filter(|column| **column != 0).count(),
            tokens: after.iter().enumerate().filter_map(is_token).collect(),
        }
    };
    Ok((0..batch).map(place).collect())
}

/// The listed sequences, which have all tokens of the step.
fn places_by_list(list: &[i64], rows: usize, tokens: usize) -> Result<Vec<Place>> {
    length("the list of sequences", list.len(), list.len() / SEQUENCE_NUMBERS * SEQUENCE_NUMBERS)?;
    let mut places = Vec::with_capacity(list.len() / SEQUENCE_NUMBERS);
    // where the tokens of each row end, if it came before
    let mut ends = vec![None; rows];
    let mut first = 0_usize;
    for (index, numbers) in list.chunks_exact(SEQUENCE_NUMBERS).enumerate() {
        let wrong = || Error::Sequence { index, found: [numbers[0], numbers[1], numbers[2]], rows, tokens };
        let [row, cached, new] = [numbers[0], numbers[1], numbers[2]].map(usize::try_from);
        let (Ok(row), Ok(cached), Ok(new)) = (row, cached, new) else { return Err(wrong()) };
        let last = first.checked_add(new).filter(|last| *last <= tokens).ok_or_else(wrong)?;
        let end = ends.get_mut(row).ok_or_else(wrong)?;
        if end.is_some_and(|end| end != cached) {
            return Err(wrong());
        }
        *end = Some(cached.saturating_add(new));
        places.push(Place { row, cached, tokens: (first..last).collect() });
        first = last;
    }
    length("the tokens of all sequences", tokens, first)?;
    Ok(places)
}

/// A step whose inputs fit.
struct Step<'a> {
    inputs: &'a Attention<'a>,
    rotary: Rotary<'a>,
    slots: usize,
    row_bytes: usize,
    sequences: Vec<Sequence>,
    /// Indices of the sequences of each row of the cache.
    of_row: Vec<Vec<usize>>,
}

impl<'a> Step<'a> {
    fn new(inputs: &'a Attention<'a>, cache: &Cache<'_>, results: usize) -> Result<Self> {
        let Attention { kv_heads, channels, .. } = *inputs;
        let is_width = |width: &usize| (1..=usize::MAX / 2).contains(width) && channels.is_multiple_of(2);
        let width = kv_heads.checked_mul(channels).filter(is_width);
        let width = width.ok_or(Error::Heads { kv_heads, channels })?;
        let tokens = inputs.keys_and_values.len() / width / 2;
        length("keys and values", inputs.keys_and_values.len(), 2 * width * tokens)?;
        length("the cosines", inputs.cos.len(), tokens * (channels / 2))?;
        length("the sines", inputs.sin.len(), tokens * (channels / 2))?;
        let slots = inputs.queries.len() / width / tokens.max(1);
        length("the queries", inputs.queries.len(), tokens * slots * width)?;
        length("the result", results, inputs.queries.len())?;
        let row_bytes = inputs.format.row_bytes(channels);
        let size = row_bytes.and_then(|bytes| {
            bytes.checked_mul(cache.batch)?.checked_mul(kv_heads)?.checked_mul(cache.capacity)
        });
        let (row_bytes, size) = row_bytes.zip(size).ok_or(Error::Heads { kv_heads, channels })?;
        let places = match inputs.sequences {
            Sequences::Masked { batch, mask } => places_by_mask((batch, mask), cache.batch, tokens)?,
            Sequences::Listed(list) => places_by_list(list, cache.batch, tokens)?,
        };
        length("the cached keys", cache.keys.len(), size)?;
        length("the cached values", cache.values.len(), size)?;
        let mut sequences = Vec::with_capacity(places.len());
        let mut of_row = vec![Vec::new(); if places.is_empty() { 0 } else { cache.batch }];
        let mut first_query = 0;
        for (index, Place { row, cached, tokens }) in places.into_iter().enumerate() {
            if cached.saturating_add(tokens.len()) > cache.capacity {
                let (tokens, capacity) = (cached.saturating_add(tokens.len()), cache.capacity);
                return Err(Error::CacheFull { sequence: row, tokens, capacity });
            }
            let queries = tokens.iter().enumerate().flat_map(|(index, token)| {
                (0..slots).map(move |slot| Query { token: *token, slot, visible: cached + index + 1 })
            });
            let queries: Vec<Query> = queries.collect();
            let count = queries.len();
            of_row[row].push(index);
            sequences.push(Sequence { row, cached, tokens, queries, first_query });
            first_query += count;
        }
        let rotary = Rotary { cos: inputs.cos, sin: inputs.sin };
        Ok(Step { inputs, rotary, slots, row_bytes, sequences, of_row })
    }

    /// Writes the new keys and values into the cache.
    fn write(&self, context: ExecContext<'_>, cache: &mut Cache<'_>) {
        let Attention { format, kv_heads, channels, keys_and_values, .. } = *self.inputs;
        let head_bytes = self.row_bytes * cache.capacity;
        if head_bytes == 0 {
            return;
        }
        let heads = cache.keys.chunks_exact_mut(head_bytes).zip(cache.values.chunks_exact_mut(head_bytes));
        let heads = heads.enumerate().filter(|(index, _)| !self.of_row[index / kv_heads].is_empty());
        let heads: Vec<_> = heads.collect();
        let write_head = |(index, (keys, values)): (usize, (&mut [u8], &mut [u8]))| {
            for sequence in &self.of_row[index / kv_heads] {
                let sequence = &self.sequences[*sequence];
                let write = Write {
                    format,
                    row_bytes: self.row_bytes,
                    rotary: self.rotary,
                    keys_and_values,
                    kv_heads,
                    channels,
                    head: index % kv_heads,
                    tokens: &sequence.tokens,
                    cached: sequence.cached,
                };
                simd::run(context.isa, (&write, &mut *keys, &mut *values));
            }
        };
        // Waking threads takes as long as rotating this many numbers.
        const FEW_NUMBERS: usize = 1 << 15;
        if keys_and_values.len() < FEW_NUMBERS {
            heads.into_iter().for_each(write_head);
        } else {
            parallel_for_each(context.threads, heads.into_iter(), write_head);
        }
    }

    /// Computes attention over the cache, which holds the new tokens.
    fn attend(&self, context: ExecContext<'_>, cache: &Cache<'_>, y: &mut [f32]) {
        let Attention { kv_heads, channels, .. } = *self.inputs;
        // [heads, queries of all sequences, channels]
        let queries: usize = self.sequences.iter().map(|sequence| sequence.queries.len()).sum();
        let mut by_head = vec![0.0; kv_heads * queries * channels];
        let mut tasks = Vec::new();
        let mut rest = by_head.as_mut_slice();
        for head in 0..kv_heads {
            for (index, sequence) in self.sequences.iter().enumerate() {
                for queries in sequence.queries.chunks(TILE_QUERIES) {
                    let (results, others) = rest.split_at_mut(queries.len() * channels);
                    rest = others;
                    tasks.push((self.task(cache, (index, head), queries), results));
                }
            }
        }
        // Fewer tasks than this leave threads without work.
        let few_tasks = 4 * context.threads.count();
        if context.threads.count() > 1 && tasks.len() < few_tasks {
            self.attend_in_parts(context, tasks);
        } else {
            // those with the most keys first
            tasks.sort_by_key(|(task, _)| std::cmp::Reverse(task.visible()));
            parallel_for_each(context.threads, tasks.into_iter(), |(task, results)| {
                simd::run(context.isa, (&task, results));
            });
        }
        self.copy_results(context, queries, &by_head, y);
    }

    fn task<'s>(
        &'s self,
        cache: &'s Cache<'_>,
        (sequence, head): (usize, usize),
        rows: &'s [Query],
    ) -> Task<'s> {
        let Attention { format, kv_heads, channels, queries, .. } = *self.inputs;
        let Sequence { row, cached, ref tokens, .. } = self.sequences[sequence];
        let first = (row * kv_heads + head) * cache.capacity * self.row_bytes;
        let written = cached + tokens.len();
        let bytes = written * self.row_bytes;
        Task {
            format,
            row_bytes: self.row_bytes,
            rotary: self.rotary,
            queries,
            slots: self.slots,
            kv_heads,
            channels,
            head,
            keys: &cache.keys[first..][..bytes],
            values: &cache.values[first..][..bytes],
            rows,
            part: None,
        }
    }

    /// Computes every part of the cache on its own, then merges the parts.
    fn attend_in_parts(&self, context: ExecContext<'_>, tasks: Vec<(Task<'_>, &mut [f32])>) {
        let channels = self.inputs.channels;
        let width = result_width(channels, true);
        let parts_of = |task: &Task<'_>| task.visible().div_ceil(PART_KEYS);
        let size: usize = tasks.iter().map(|(task, _)| parts_of(task) * task.rows.len() * width).sum();
        let mut partial = vec![0.0; size];
        let mut rest = partial.as_mut_slice();
        let mut of_parts = Vec::new();
        for (task, _) in &tasks {
            for part in 0..parts_of(task) {
                let (results, others) = rest.split_at_mut(task.rows.len() * width);
                rest = others;
                of_parts.push((Task { part: Some(part), ..task.clone() }, results));
            }
        }
        parallel_for_each(context.threads, of_parts.into_iter(), |(task, results)| {
            simd::run(context.isa, (&task, results));
        });
        let mut rest = partial.as_slice();
        for (task, results) in tasks {
            let (found, others) = rest.split_at(parts_of(&task) * task.rows.len() * width);
            rest = others;
            let parts: Vec<&[f32]> = found.chunks_exact((task.rows.len() * width).max(1)).collect();
            simd::run(context.isa, (&Merge { channels, parts: &parts }, results));
        }
    }

    /// Copies the results `[heads, queries, channels]` to the rows of their tokens.
    fn copy_results(&self, context: ExecContext<'_>, queries: usize, by_head: &[f32], y: &mut [f32]) {
        let Attention { kv_heads, channels, .. } = *self.inputs;
        // where the result of each row is; padding has none
        let mut positions = vec![None; y.len() / (kv_heads * channels)];
        for sequence in &self.sequences {
            for (index, query) in sequence.queries.iter().enumerate() {
                positions[query.token * self.slots + query.slot] = Some(sequence.first_query + index);
            }
        }
        for_each_row(context, y, kv_heads * channels, |row, y| match positions[row] {
            None => y.fill(0.0),
            Some(position) => {
                for (head, y) in y.chunks_exact_mut(channels).enumerate() {
                    y.copy_from_slice(&by_head[(head * queries + position) * channels..][..channels]);
                }
            }
        });
    }
}
