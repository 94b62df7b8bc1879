//! Attention of some queries of one key head: what one thread computes at a time.
//!
//! Keys are read in tiles of [`TILE_KEYS`], tiles belong to parts of [`PART_KEYS`], and both begin at fixed places of the cache.
//! A query sums over the keys of a tile in the order of their places, then over the tiles of a part, then over the parts. What
//! it gets so depends neither on the queries beside it nor on the number of threads.

use jetmoe_format::CacheFormat;

use super::products::{ROWS, RowSums, Scores, Tile, finish};
use super::rows::{CachedRows, WideRows, encode_row, scale_of_row, widen};
use crate::simd::{LANES, Simd, Work};

/// Keys whose scores are computed before their values are read.
pub(super) const TILE_KEYS: usize = 64;

/// Keys of a part of the cache, which a thread may compute on its own.
pub(super) const PART_KEYS: usize = 512;

/// Queries of a task at most: so many that a tile of keys stays in a cache for all of them.
pub(super) const TILE_QUERIES: usize = 64;

/// Keys that a query is multiplied with at a time.
pub(super) const KEYS: usize = 4;

/// More queries than this take keys and values that were widened to float32 once.
const FEW_QUERIES: usize = ROWS;

/// Tables of rotary angles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotary<'a> {
    /// `[tokens, channels / 2]`
    pub(super) cos: &'a [f32],
    /// `[tokens, channels / 2]`
    pub(super) sin: &'a [f32],
}

impl Rotary<'_> {
    /// Rotates the first half of the channels against the second one, by the angles of a token, and multiplies by a factor.
    #[inline(always)]
    fn rotate(&self, token: usize, numbers: &[f32], factor: f32, rotated: &mut [f32]) {
        let half = numbers.len() / 2;
        let (cos, sin) = (&self.cos[token * half..][..half], &self.sin[token * half..][..half]);
        let (first, second) = (&numbers[..half], &numbers[half..2 * half]);
        let (rotated_first, rotated_second) = rotated.split_at_mut(half);
        let (rotated_first, rotated_second) = (&mut rotated_first[..half], &mut rotated_second[..half]);
        for index in 0..half {
            let (a, b, cos, sin) = (first[index], second[index], cos[index], sin[index]);
            rotated_first[index] = (a * cos - b * sin) * factor;
            rotated_second[index] = (b * cos + a * sin) * factor;
        }
    }
}

/// New keys and values of a key head of a sequence.
pub(super) struct Write<'a> {
    pub(super) format: CacheFormat,
    pub(super) row_bytes: usize,
    pub(super) rotary: Rotary<'a>,
    /// `[tokens, 2, kv_heads, channels]`
    pub(super) keys_and_values: &'a [f32],
    pub(super) kv_heads: usize,
    pub(super) channels: usize,
    pub(super) head: usize,
    /// The tokens of the sequence, in their order.
    pub(super) tokens: &'a [usize],
    /// The place of the first one.
    pub(super) cached: usize,
}

impl Work for (&Write<'_>, &mut [u8], &mut [u8]) {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.0.run(self.1, self.2);
    }
}

impl Write<'_> {
    /// Writes them into the rows of the head, `[capacity, row bytes]`.
    #[inline(always)]
    fn run(&self, keys: &mut [u8], values: &mut [u8]) {
        let Write { channels, row_bytes, .. } = *self;
        let mut rotated = vec![0.0; channels];
        for (index, token) in self.tokens.iter().enumerate() {
            let key = (2 * token * self.kv_heads + self.head) * channels;
            let value = key + self.kv_heads * channels;
            let row = (self.cached + index) * row_bytes;
            self.rotary.rotate(*token, &self.keys_and_values[key..][..channels], 1.0, &mut rotated);
            encode_row(self.format, &rotated, &mut keys[row..][..row_bytes]);
            let value = &self.keys_and_values[value..][..channels];
            encode_row(self.format, value, &mut values[row..][..row_bytes]);
        }
    }
}

/// A query: its row in the result of a head, and how many keys it attends to, from place 0 on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) token: usize,
    pub(super) slot: usize,
    pub(super) visible: usize,
}

/// Some queries of a key head of a sequence, and the parts of the cache that they attend to here.
#[derive(Clone)]
pub(super) struct Task<'a> {
    pub(super) format: CacheFormat,
    pub(super) row_bytes: usize,
    pub(super) rotary: Rotary<'a>,
    /// `[tokens, slots, kv_heads, channels]`
    pub(super) queries: &'a [f32],
    pub(super) slots: usize,
    pub(super) kv_heads: usize,
    pub(super) channels: usize,
    pub(super) head: usize,
    /// Rows of the head that are written, `[tokens, row bytes]`.
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    /// In the order of their tokens; at most [`TILE_QUERIES`].
    pub(super) rows: &'a [Query],
    /// Index of the only part; all parts, and results that are complete, if `None`.
    pub(super) part: Option<usize>,
}

/// What queries have summed over some keys.
pub(super) struct Sums {
    /// Largest score of each query.
    pub(super) largest: Vec<f32>,
    /// Sum of the weights e^(score − largest).
    pub(super) weights: Vec<f32>,
    /// Sum of the weights times the values, `[queries, blocks]`.
    pub(super) values: Vec<[f32; LANES]>,
}

impl Sums {
    fn new(rows: usize, blocks: usize) -> Self {
        Sums {
            largest: vec![f32::NEG_INFINITY; rows],
            weights: vec![0.0; rows],
            values: vec![[0.0; LANES]; rows * blocks],
        }
    }

    fn row(&mut self, row: usize, blocks: usize) -> RowSums<'_> {
        RowSums {
            largest: &mut self.largest[row],
            weights: &mut self.weights[row],
            values: self.values[row * blocks..][..blocks].as_flattened_mut(),
        }
    }

    fn clear(&mut self) {
        self.largest.fill(f32::NEG_INFINITY);
        self.weights.fill(0.0);
        self.values.fill([0.0; LANES]);
    }
}

/// Memory of a task.
struct Scratch {
    /// Rotated and scaled, `[queries, blocks]`.
    queries: Vec<[f32; LANES]>,
    scores: Scores,
    key_scales: [f32; TILE_KEYS],
    value_scales: [f32; TILE_KEYS],
    wide_keys: Vec<[f32; LANES]>,
    wide_values: Vec<[f32; LANES]>,
}

/// Numbers in a result of a task for a query: of all parts, those of the head; of one part, with largest score and weight in
/// front.
pub(super) fn result_width(channels: usize, is_part: bool) -> usize {
    if is_part { LANES + channels.next_multiple_of(LANES) } else { channels }
}

impl Work for (&Task<'_>, &mut [f32]) {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.attend(simd, self.1);
    }
}

impl Task<'_> {
    fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Keys that the last query attends to.
    pub(super) fn visible(&self) -> usize {
        self.rows.iter().map(|row| row.visible).max().unwrap_or(0)
    }

    /// Computes the results `[rows, result width]`.
    #[inline(always)]
    fn attend<S: Simd>(&self, simd: S, results: &mut [f32]) {
        let (rows, blocks) = (self.rows.len(), self.blocks());
        let has_whole_blocks = self.channels.is_multiple_of(LANES);
        let is_widened = !has_whole_blocks || (rows > FEW_QUERIES && self.format != CacheFormat::F32);
        let wide = if is_widened { TILE_KEYS * blocks } else { 0 };
        let mut scratch = Scratch {
            queries: vec![[0.0; LANES]; rows * blocks],
            scores: [[0.0; TILE_KEYS]; ROWS],
            key_scales: [1.0; TILE_KEYS],
            value_scales: [1.0; TILE_KEYS],
            wide_keys: vec![[0.0; LANES]; wide],
            wide_values: vec![[0.0; LANES]; wide],
        };
        self.rotate_queries(&mut scratch.queries);
        let most = self.visible();
        let mut sums = Sums::new(rows, blocks);
        if let Some(part) = self.part {
            self.sum_part(simd, part, most, is_widened, &mut scratch, &mut sums);
            let width = result_width(self.channels, true);
            for (row, result) in results.chunks_exact_mut(width).enumerate() {
                let (facts, values) = result.split_at_mut(LANES);
                (facts[0], facts[1]) = (sums.largest[row], sums.weights[row]);
                values.copy_from_slice(sums.values[row * blocks..][..blocks].as_flattened());
            }
            return;
        }
        self.sum_part(simd, 0, most, is_widened, &mut scratch, &mut sums);
        if most > PART_KEYS {
            let mut part_sums = Sums::new(rows, blocks);
            for part in 1..most.div_ceil(PART_KEYS) {
                part_sums.clear();
                self.sum_part(simd, part, most, is_widened, &mut scratch, &mut part_sums);
                for row in 0..rows {
                    let part = part_sums.row(row, blocks);
                    sums.row(row, blocks).add_part((*part.largest, *part.weights), part.values);
                }
            }
        }
        for (row, result) in results.chunks_exact_mut(self.channels).enumerate() {
            finish(sums.weights[row], sums.values[row * blocks..][..blocks].as_flattened(), result);
        }
    }

    #[inline(always)]
    fn rotate_queries(&self, rotated: &mut [[f32; LANES]]) {
        let factor = (self.channels as f64).powf(-0.5) as f32;
        let blocks = self.blocks();
        for (row, rotated) in self.rows.iter().zip(rotated.chunks_exact_mut(blocks)) {
            let query = ((row.token * self.slots + row.slot) * self.kv_heads + self.head) * self.channels;
            let query = &self.queries[query..][..self.channels];
            self.rotary.rotate(row.token, query, factor, &mut rotated.as_flattened_mut()[..self.channels]);
        }
    }

    /// Sums over the keys of a part.
    #[inline(always)]
    fn sum_part<S: Simd>(
        &self,
        simd: S,
        part: usize,
        most: usize,
        is_widened: bool,
        scratch: &mut Scratch,
        sums: &mut Sums,
    ) {
        let end = most.min((part + 1) * PART_KEYS);
        for first in (part * PART_KEYS..end).step_by(TILE_KEYS) {
            let count = TILE_KEYS.min(end - first);
            let range = first * self.row_bytes..(first + count) * self.row_bytes;
            let (keys, values) = (&self.keys[range.clone()], &self.values[range]);
            let row_bytes = self.row_bytes;
            if self.format == CacheFormat::Int8 {
                for (index, key) in keys.chunks_exact(row_bytes).enumerate() {
                    scratch.key_scales[index] = scale_of_row(key);
                }
                for (index, value) in values.chunks_exact(row_bytes).enumerate() {
                    scratch.value_scales[index] = scale_of_row(value);
                }
            }
            let tile =
                Tile { first, count, blocks: self.blocks(), has_scales: self.format == CacheFormat::Int8 };
            if is_widened {
                widen(simd, self.format, (keys, row_bytes), self.channels, &mut scratch.wide_keys);
                widen(simd, self.format, (values, row_bytes), self.channels, &mut scratch.wide_values);
                let Scratch { queries, scores, key_scales, value_scales, wide_keys, wide_values } = scratch;
                let queries = (self.rows, queries.as_slice());
                let blocks = self.blocks();
                let keys = WideRows { numbers: wide_keys, blocks };
                let values = WideRows { numbers: wide_values, blocks };
                tile.add(simd, queries, scores, (keys, key_scales), (values, value_scales), sums);
                continue;
            }
            let Scratch { queries, scores, key_scales, value_scales, .. } = scratch;
            let queries = (self.rows, queries.as_slice());
            match self.format {
                CacheFormat::F32 => {
                    let keys = CachedRows::<{ 4 * LANES }> { bytes: keys, row_bytes };
                    let values = CachedRows::<{ 4 * LANES }> { bytes: values, row_bytes };
                    tile.add(simd, queries, scores, (keys, key_scales), (values, value_scales), sums);
                }
                CacheFormat::F16 => {
                    let keys = CachedRows::<{ 2 * LANES }> { bytes: keys, row_bytes };
                    let values = CachedRows::<{ 2 * LANES }> { bytes: values, row_bytes };
                    tile.add(simd, queries, scores, (keys, key_scales), (values, value_scales), sums);
                }
                CacheFormat::Int8 => {
                    let keys = CachedRows::<LANES> { bytes: keys, row_bytes };
                    let values = CachedRows::<LANES> { bytes: values, row_bytes };
                    tile.add(simd, queries, scores, (keys, key_scales), (values, value_scales), sums);
                }
            }
        }
    }
}

/// The results of all parts for some queries of a key head.
pub(super) struct Merge<'a> {
    pub(super) channels: usize,
    /// Of each part, in their order: `[rows, result width]`.
    pub(super) parts: &'a [&'a [f32]],
}

impl Work for (&Merge<'_>, &mut [f32]) {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.0.run(self.1);
    }
}

impl Merge<'_> {
    /// Computes the results `[rows, channels]`.
    #[inline(always)]
    fn run(&self, results: &mut [f32]) {
        let width = result_width(self.channels, true);
        let mut values = vec![0.0; width - LANES];
        for (row, result) in results.chunks_exact_mut(self.channels).enumerate() {
            let (mut largest, mut weights) = (f32::NEG_INFINITY, 0.0);
            for (index, part) in self.parts.iter().enumerate() {
                let (facts, part) = part[row * width..][..width].split_at(LANES);
                if index == 0 {
                    (largest, weights) = (facts[0], facts[1]);
                    values.copy_from_slice(part);
                } else {
                    let mut sums =
                        RowSums { largest: &mut largest, weights: &mut weights, values: &mut values };
                    sums.add_part((facts[0], facts[1]), part);
                }
            }
            finish(weights, &values, result);
        }
    }
}
