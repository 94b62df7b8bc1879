//! A tile of keys: scores of some queries, their softmax, and the weighted sum of the values.

use super::rows::Rows;
use super::tile::{KEYS, Query, Sums, TILE_KEYS};
use crate::activation::exp;
use crate::simd::{LANES, Simd, sum};

/// Queries that are computed at a time.
pub(super) const ROWS: usize = 4;

/// Scores, then weights, of some queries.
pub(super) type Scores = [[f32; TILE_KEYS]; ROWS];

/// Keys or values of a tile, and the factor of each.
pub(super) type Scaled<'a, R> = (R, &'a [f32; TILE_KEYS]);

/// A tile of keys and values.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Place of the first key.
    pub(super) first: usize,
    /// Keys.
    pub(super) count: usize,
    /// Of a row.
    pub(super) blocks: usize,
    /// Whether the factors of keys and values are others than 1.
    pub(super) has_scales: bool,
}

impl Tile {
    /// Adds what the queries get of the tile. `queries` are rotated, `[rows, blocks]`.
    #[inline(always)]
    pub(super) fn add<S: Simd, R: Rows>(
        &self,
        simd: S,
        (rows, queries): (&[Query], &[[f32; LANES]]),
        scores: &mut Scores,
        (keys, key_scales): Scaled<'_, R>,
        (values, value_scales): Scaled<'_, R>,
        sums: &mut Sums,
    ) {
        let blocks = self.blocks;
        for (index, chunk) in rows.chunks(ROWS).enumerate() {
            let first_row = index * ROWS;
            let mut visible = [0; ROWS];
            for (visible, row) in visible.iter_mut().zip(chunk) {
                *visible = row.visible.saturating_sub(self.first).min(self.count);
            }
            let visible = &visible[..chunk.len()];
            let most = visible.iter().copied().max().unwrap_or(0);
            if most == 0 {
                continue;
            }
            let queries = &queries[first_row * blocks..][..chunk.len() * blocks];
            // as many rows at once as there are registers for
            match chunk.len() {
                4 if S::HAS_MANY_REGISTERS => {
                    multiply_keys::<S, R, 4>(simd, queries, blocks, keys, most, scores)
                }
                2 if S::HAS_MANY_REGISTERS => {
                    multiply_keys::<S, R, 2>(simd, queries, blocks, keys, most, scores)
                }
                _ => {
                    for (row, query) in queries.chunks_exact(blocks).enumerate() {
                        multiply_keys::<S, R, 1>(simd, query, blocks, keys, visible[row], &mut scores[row..]);
                    }
                }
            }
            let mut corrections = [1.0; ROWS];
            for (row, visible) in visible.iter().enumerate() {
                if *visible == 0 {
                    continue;
                }
                let scores = &mut scores[row];
                if self.has_scales {
                    multiply_each(scores, key_scales);
                }
                let (largest, weights) =
                    (&mut sums.largest[first_row + row], &mut sums.weights[first_row + row]);
                corrections[row] = softmax(scores, *visible, largest, weights);
                if self.has_scales {
                    multiply_each(scores, value_scales);
                }
            }
            let sums = &mut sums.values[first_row * blocks..][..chunk.len() * blocks];
            let range = (0, visible.iter().copied().min().unwrap_or(0));
            match chunk.len() {
                4 if S::HAS_MANY_REGISTERS => {
                    add_values::<S, R, 4, 4>(simd, scores, range, blocks, values, &corrections, sums);
                }
                2 if S::HAS_MANY_REGISTERS => {
                    add_values::<S, R, 2, 8>(simd, scores, range, blocks, values, &corrections, sums);
                }
                _ => {
                    for (row, sums) in sums.chunks_exact_mut(blocks).enumerate() {
                        let (scores, corrections) = (&scores[row..], &corrections[row..]);
                        add_values::<S, R, 1, 4>(simd, scores, range, blocks, values, corrections, sums);
                    }
                }
            }
            // keys that only some of the queries see
            for (row, sums) in sums.chunks_exact_mut(blocks).enumerate() {
                let range = (range.1, visible[row]);
                if range.0 < range.1 {
                    add_values::<S, R, 1, 4>(simd, &scores[row..], range, blocks, values, &[1.0], sums);
                }
            }
        }
    }
}

/// Scores of `N` queries `[N, blocks]` with the first `count` keys. What it writes behind them does not matter.
#[inline(always)]
fn multiply_keys<S: Simd, R: Rows, const N: usize>(
    simd: S,
    queries: &[[f32; LANES]],
    blocks: usize,
    keys: R,
    count: usize,
    scores: &mut [[f32; TILE_KEYS]],
) {
    let scores = &mut scores[..N];
    let queries = &queries[..N * blocks];
    for first in (0..count).step_by(KEYS) {
        // the last keys again, where there are no four
        let key = |index: usize| &keys.row((first + index).min(count - 1))[..blocks];
        let (key0, key1, key2, key3) = (key(0), key(1), key(2), key(3));
        let mut products = [[simd.splat(0.0); KEYS]; N];
        for block in 0..blocks {
            let key0 = R::load(simd, &key0[block]);
            let key1 = R::load(simd, &key1[block]);
            let key2 = R::load(simd, &key2[block]);
            let key3 = R::load(simd, &key3[block]);
            for row in 0..N {
                let query = simd.load(&queries[row * blocks + block]);
                let products = &mut products[row];
                products[0] = simd.mul_add(query, key0, products[0]);
                products[1] = simd.mul_add(query, key1, products[1]);
                products[2] = simd.mul_add(query, key2, products[2]);
                products[3] = simd.mul_add(query, key3, products[3]);
            }
        }
        for row in 0..N {
            scores[row][first..first + KEYS].copy_from_slice(&simd.sums(products[row]));
        }
    }
}

#[inline(always)]
fn multiply_each(numbers: &mut [f32; TILE_KEYS], factors: &[f32; TILE_KEYS]) {
    for (number, factor) in numbers.iter_mut().zip(factors) {
        *number *= factor;
    }
}

/// Turns the first `count` scores into weights e^(score − largest), the others into 0. Returns what the sums so far are
/// multiplied with, because there is a larger score.
#[inline(always)]
fn softmax(scores: &mut [f32; TILE_KEYS], count: usize, largest: &mut f32, weights: &mut f32) -> f32 {
    let padded = count.next_multiple_of(LANES);
    scores[count..padded].fill(f32::NEG_INFINITY);
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (blocks, _) = scores[..padded].as_chunks_mut::<LANES>();
    for block in blocks.iter() {
        for (maximum, score) in maxima.iter_mut().zip(block) {
            *maximum = if *score > *maximum { *score } else { *maximum };
        }
    }
    let new = maxima.iter().fold(*largest, |largest, maximum| largest.max(*maximum));
    let correction = exp(*largest - new);
    for block in blocks.iter_mut() {
        for score in block {
            *score = exp(*score - new);
        }
    }
    scores[count..padded].fill(0.0);
    let mut sums = [0.0; LANES];
    for block in scores[..padded].as_chunks::<LANES>().0 {
        for (sum, weight) in sums.iter_mut().zip(block) {
            *sum += weight;
        }
    }
    *largest = new;
    *weights = *weights * correction + sum(sums);
    correction
}

/// Multiplies the sums of `N` queries `[N, blocks]` by their corrections, and adds the values of a range of keys times their
/// weights, `C` blocks at a time.
#[inline(always)]
fn add_values<S: Simd, R: Rows, const N: usize, const C: usize>(
    simd: S,
    weights: &[[f32; TILE_KEYS]],
    range: (usize, usize),
    blocks: usize,
    values: R,
    corrections: &[f32],
    sums: &mut [[f32; LANES]],
) {
    let mut first = 0;
    while first + C <= blocks {
        add_blocks::<S, R, N, C>(simd, weights, range, (first, blocks), values, corrections, sums);
        first += C;
    }
    while first < blocks {
        add_blocks::<S, R, N, 1>(simd, weights, range, (first, blocks), values, corrections, sums);
        first += 1;
    }
}

#[inline(always)]
fn add_blocks<S: Simd, R: Rows, const N: usize, const C: usize>(
    simd: S,
    weights: &[[f32; TILE_KEYS]],
    (begin, end): (usize, usize),
    (first, blocks): (usize, usize),
    values: R,
    corrections: &[f32],
    sums: &mut [[f32; LANES]],
) {
    let (weights, corrections) = (&weights[..N], &corrections[..N]);
    let mut totals = [[simd.splat(0.0); C]; N];
    for row in 0..N {
        let sums = &sums[row * blocks + first..][..C];
        let correction = simd.splat(corrections[row]);
        for block in 0..C {
            totals[row][block] = simd.mul(simd.load(&sums[block]), correction);
        }
    }
    // a bound that the compiler knows
    let end = end.min(TILE_KEYS);
    let mut key = begin;
    while key < end {
        let value = &values.row(key)[first..][..C];
        for block in 0..C {
            let value = R::load(simd, &value[block]);
            for row in 0..N {
                let weight = simd.splat(weights[row][key]);
                totals[row][block] = simd.mul_add(weight, value, totals[row][block]);
            }
        }
        key += 1;
    }
    for row in 0..N {
        let sums = &mut sums[row * blocks + first..][..C];
        for block in 0..C {
            simd.store(&mut sums[block], totals[row][block]);
        }
    }
}

/// Largest score and weight of a query, and its values.
pub(super) struct RowSums<'a> {
    pub(super) largest: &'a mut f32,
    pub(super) weights: &'a mut f32,
    pub(super) values: &'a mut [f32],
}

impl RowSums<'_> {
    /// Adds the sums over another part of the cache: its largest score, weights and values.
    #[inline(always)]
    pub(super) fn add_part(&mut self, (largest, weights): (f32, f32), values: &[f32]) {
        // the query sees no key of the part
        if weights == 0.0 {
            return;
        }
        let new = self.largest.max(largest);
        let (before, added) = (exp(*self.largest - new), exp(largest - new));
        *self.weights = *self.weights * before + weights * added;
        for (sum, value) in self.values.iter_mut().zip(values) {
            *sum = *sum * before + value * added;
        }
        *self.largest = new;
    }
}

/// Divides the weighted sum of values by the sum of the weights. A query that sees no key gets zeros.
#[inline(always)]
pub(super) fn finish(weights: f32, values: &[f32], result: &mut [f32]) {
    let factor = if weights == 0.0 { 0.0 } else { 1.0 / weights };
    for (result, value) in result.iter_mut().zip(values) {
        *result = value * factor;
    }
}
