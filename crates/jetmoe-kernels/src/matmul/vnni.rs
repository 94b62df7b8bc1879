//! The loops of all instruction sets whose dot product takes four unsigned codes and four signed values (VNNI), for vectors of
//! any width.

use half::f16;
use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS};

use super::avx2::PREFETCH_DISTANCE;
use super::{LANE_COLUMNS, LANE_GROUP_BYTES, LANE_GROUPS, QuantizedPanel, block_bytes};
use crate::packed_input::{ActivationRows, ActivationTile};

/// The instructions of one width. A value is the proof that the processor has them.
pub(super) trait Vnni: Copy {
    /// 32-bit integers, or four bytes in each lane.
    type Integers: Copy;
    /// As many float32 numbers.
    type Floats: Copy;

    /// 32-bit lanes of a vector: rows of a panel that it holds one number of.
    const LANES: usize;
    /// Rows whose sums are computed at the same time, 2 or 6.
    const INTERLEAVED: usize;

    /// Loads four bytes for each lane.
    fn load(self, bytes: &[u8]) -> Self::Integers;
    /// Loads one byte for each lane.
    fn load_bytes(self, bytes: &[u8]) -> Self::Integers;
    /// Loads float16 numbers.
    fn load_halves(self, numbers: &[f16]) -> Self::Floats;
    fn load_floats(self, numbers: &[f32]) -> Self::Floats;
    fn store(self, numbers: &mut [f32], values: Self::Floats);
    fn zero(self) -> Self::Floats;
    fn splat(self, value: i32) -> Self::Integers;
    fn splat_float(self, value: f32) -> Self::Floats;
    /// The lower and the upper half of each byte.
    fn halves(self, bytes: Self::Integers) -> [Self::Integers; 2];
    /// The negated numbers in 16 bits each; the upper 16 bits are zeros.
    fn negated(self, numbers: Self::Integers) -> Self::Integers;
    /// Adds the products of four unsigned and four signed bytes in each lane.
    fn dot(self, sums: Self::Integers, unsigned: Self::Integers, signed: Self::Integers) -> Self::Integers;
    /// Adds the products of two signed 16-bit numbers in each lane.
    fn dot16(self, sums: Self::Integers, a: Self::Integers, b: Self::Integers) -> Self::Integers;
    fn to_floats(self, numbers: Self::Integers) -> Self::Floats;
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a · b + c, rounded once
    fn multiply_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Prefetches a line.
    fn prefetch<T>(self, address: *const T);
}

/// Scales and zero points of some rows of a panel, for each group of a block.
#[derive(Clone, Copy)]
struct Groups<V: Vnni, const GROUPS: usize> {
    scales: [V::Floats; GROUPS],
    /// Operands of `dot16`.
    zero_points: [V::Integers; GROUPS],
}

/// One block of a panel, a byte for each code.
type Unpacked<V, const VECTORS: usize> = [[<V as Vnni>::Integers; VECTORS]; LANE_GROUPS];

/// The products of a tile with a panel, which has `VECTORS` vectors.
///
/// The sums of several rows are computed at the same time. Each instruction of a sum waits for the one before it, so that the
/// sums of one row alone would leave most of the units for dot products unused.
#[inline(always)]
pub(super) fn multiply<
    V: Vnni,
    const VECTORS: usize,
    const BITS: usize,
    const GROUPS: usize,
    const ZERO_POINTS: bool,
>(
    v: V,
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    const { assert!(VECTORS * V::LANES == PANEL_ROWS) }
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    match products.len() {
        1 => multiply_few::<V, VECTORS, BITS, GROUPS, ZERO_POINTS, 1>(v, weight, rows, products),
        2 => multiply_few::<V, VECTORS, BITS, GROUPS, ZERO_POINTS, 2>(v, weight, rows, products),
        3 if V::INTERLEAVED > 2 => {
            multiply_few::<V, VECTORS, BITS, GROUPS, ZERO_POINTS, 3>(v, weight, rows, products);
        }
        4 if V::INTERLEAVED > 2 => {
            multiply_few::<V, VECTORS, BITS, GROUPS, ZERO_POINTS, 4>(v, weight, rows, products);
        }
        _ => multiply_many::<V, VECTORS, BITS, GROUPS, ZERO_POINTS>(v, weight, rows, products),
    }
}

/// Few rows are bound by memory: each block is read once and unpacked in registers, which hold the sums of all rows.
#[inline(always)]
fn multiply_few<
    V: Vnni,
    const VECTORS: usize,
    const BITS: usize,
    const GROUPS: usize,
    const ZERO_POINTS: bool,
    const COUNT: usize,
>(
    v: V,
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [[f32; PANEL_ROWS]],
) {
    let mut sums = [[v.zero(); VECTORS]; COUNT];
    for (block, codes) in weight.panel.codes.chunks_exact(block_bytes(BITS)).enumerate() {
        prefetch_scales::<V, BITS, GROUPS>(v, weight, block);
        let groups = load_groups::<V, VECTORS, GROUPS, ZERO_POINTS>(v, weight, block);
        let weights = unpack::<V, VECTORS, BITS>(v, codes);
        let Some(rows) = Rows::<COUNT, GROUPS>::first(&rows.block(block)) else { continue };
        let scaled = scaled_totals::<V, VECTORS, COUNT, GROUPS, ZERO_POINTS>(v, &weights, &groups, &rows);
        for ((sums, scaled), scale) in sums.iter_mut().zip(scaled).zip(rows.scales) {
            let scale = v.splat_float(*scale);
            for (sum, scaled) in sums.iter_mut().zip(scaled) {
                *sum = v.multiply_add(scaled, scale, *sum);
            }
        }
    }
    for (products, sums) in products.iter_mut().zip(sums) {
        for (products, sum) in products.chunks_exact_mut(V::LANES).zip(sums) {
            v.store(products, sum);
        }
    }
}

/// Many rows are bound by arithmetic: each block is unpacked once for all of them.
#[inline(always)]
fn multiply_many<
    V: Vnni,
    const VECTORS: usize,
    const BITS: usize,
    const GROUPS: usize,
    const ZERO_POINTS: bool,
>(
    v: V,
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [[f32; PANEL_ROWS]],
) {
    products.as_flattened_mut().fill(0.0);
    for (block, codes) in weight.panel.codes.chunks_exact(block_bytes(BITS)).enumerate() {
        prefetch_scales::<V, BITS, GROUPS>(v, weight, block);
        let groups = load_groups::<V, VECTORS, GROUPS, ZERO_POINTS>(v, weight, block);
        let weights = unpack::<V, VECTORS, BITS>(v, codes);
        let (products, x) = (&mut *products, rows.block(block));
        // In memory: the sums of the rows need the registers.
        let block = (std::hint::black_box(&weights), &groups);
        let (products, x) = match V::INTERLEAVED {
            6 => {
                let (products, x) = add_chunks::<V, VECTORS, 6, GROUPS, ZERO_POINTS>(v, block, x, products);
                add_chunks::<V, VECTORS, 4, GROUPS, ZERO_POINTS>(v, block, x, products)
            }
            _ => (products, x),
        };
        let (products, x) = add_chunks::<V, VECTORS, 2, GROUPS, ZERO_POINTS>(v, block, x, products);
        add_chunks::<V, VECTORS, 1, GROUPS, ZERO_POINTS>(v, block, x, products);
    }
}

/// Adds the products of a block of the input rows with the same block of the panel, `COUNT` rows at a time. Returns the rows that
/// remain.
#[inline(always)]
fn add_chunks<
    'a,
    'x,
    V: Vnni,
    const VECTORS: usize,
    const COUNT: usize,
    const GROUPS: usize,
    const ZERO_POINTS: bool,
>(
    v: V,
    (weights, groups): (&Unpacked<V, VECTORS>, &[Groups<V, GROUPS>; VECTORS]),
    x: ActivationTile<'x>,
    products: &'a mut [[f32; PANEL_ROWS]],
) -> (&'a mut [[f32; PANEL_ROWS]], ActivationTile<'x>) {
    let (chunks, rest) = products.as_chunks_mut::<COUNT>();
    let (tiles, x) = Rows::<COUNT, GROUPS>::chunks(x);
    for (rows, products) in tiles.zip(chunks) {
        let scaled = scaled_totals::<V, VECTORS, COUNT, GROUPS, ZERO_POINTS>(v, weights, groups, &rows);
        for ((products, scaled), scale) in products.iter_mut().zip(scaled).zip(rows.scales) {
            let scale = v.splat_float(*scale);
            for (products, scaled) in products.chunks_exact_mut(V::LANES).zip(scaled) {
                v.store(products, v.multiply_add(scaled, scale, v.load_floats(products)));
            }
        }
    }
    (rest, x)
}

/// One block of columns of `COUNT` input rows.
struct Rows<'a, const COUNT: usize, const GROUPS: usize> {
    values: &'a [[i8; BLOCK_INPUTS]; COUNT],
    scales: &'a [f32; COUNT],
    sums: &'a [[i32; GROUPS]; COUNT],
}

impl<'a, const COUNT: usize, const GROUPS: usize> Rows<'a, COUNT, GROUPS> {
    /// The first rows of a tile; `None` if it has fewer.
    #[inline(always)]
    fn first(x: &ActivationTile<'a>) -> Option<Self> {
        Some(Rows {
            values: x.values.first_chunk()?,
            scales: x.scales.first_chunk()?,
            sums: x.sums.as_chunks().0.first_chunk()?,
        })
    }

    /// The rows of a tile, `COUNT` at a time, and the rows that remain.
    #[inline(always)]
    fn chunks(x: ActivationTile<'a>) -> (impl Iterator<Item = Self>, ActivationTile<'a>) {
        let (values, values_left) = x.values.as_chunks();
        let (scales, scales_left) = x.scales.as_chunks();
        let (sums, sums_left) = x.sums.as_chunks::<GROUPS>().0.as_chunks();
        let chunks = values.iter().zip(scales).zip(sums);
        let rest =
            ActivationTile { values: values_left, scales: scales_left, sums: sums_left.as_flattened() };
        (chunks.map(|((values, scales), sums)| Rows { values, scales, sums }), rest)
    }
}

/// Sums of codes times values of a block, times the weight's scales.
#[inline(always)]
fn scaled_totals<
    V: Vnni,
    const VECTORS: usize,
    const COUNT: usize,
    const GROUPS: usize,
    const ZERO_POINTS: bool,
>(
    v: V,
    weights: &Unpacked<V, VECTORS>,
    groups: &[Groups<V, GROUPS>; VECTORS],
    rows: &Rows<'_, COUNT, GROUPS>,
) -> [[V::Floats; VECTORS]; COUNT] {
    let mut scaled = [[v.zero(); VECTORS]; COUNT];
    for group in 0..GROUPS {
        let mut totals = [[v.splat(0); VECTORS]; COUNT];
        for (totals, sums) in totals.iter_mut().zip(rows.sums) {
            for (total, groups) in totals.iter_mut().zip(groups) {
                *total = first_total::<V, GROUPS, ZERO_POINTS>(v, *total, groups, group, sums);
            }
        }
        let lane_groups = LANE_GROUPS / GROUPS;
        for lane in group * lane_groups..(group + 1) * lane_groups {
            for (totals, values) in totals.iter_mut().zip(rows.values) {
                // The 4 values that belong to a lane group, in every lane.
                let (lanes, _) = values.as_chunks::<LANE_COLUMNS>();
                let values = v.splat(i32::from_ne_bytes(lanes[lane].map(|value| value as u8)));
                for (total, weights) in totals.iter_mut().zip(&weights[lane]) {
                    *total = v.dot(*total, *weights, values);
                }
            }
        }
        for (scaled, totals) in scaled.iter_mut().zip(totals) {
            for ((scaled, total), groups) in scaled.iter_mut().zip(totals).zip(groups) {
                *scaled = scale_total(v, *scaled, groups, group, total);
            }
        }
    }
    scaled
}

/// What a sum of codes times values of a group begins with: Σ (code − zero point) · value = Σ code · value − zero point · Σ value.
#[inline(always)]
fn first_total<V: Vnni, const GROUPS: usize, const ZERO_POINTS: bool>(
    v: V,
    zero: V::Integers,
    groups: &Groups<V, GROUPS>,
    group: usize,
    row_sums: &[i32; GROUPS],
) -> V::Integers {
    let row_sum = v.splat(row_sums[group]);
    // Both factors fit in 16 bits: the sum of 32 values is at most 32 · 127.
    if ZERO_POINTS { v.dot16(zero, groups.zero_points[group], row_sum) } else { row_sum }
}

/// Multiplies the sum of a group by the weight's scales, and adds it to those of the groups before. The row's scale comes at the end.
#[inline(always)]
fn scale_total<V: Vnni, const GROUPS: usize>(
    v: V,
    scaled: V::Floats,
    groups: &Groups<V, GROUPS>,
    group: usize,
    total: V::Integers,
) -> V::Floats {
    let total = v.to_floats(total);
    match group {
        0 => v.multiply(total, groups.scales[0]),
        _ => v.multiply_add(total, groups.scales[group], scaled),
    }
}

/// Unpacks the codes of a block for all rows of the panel, 4 columns per vector. Prefetches as many codes that follow at the
/// prefetch distance, spread over the block: a core takes few requests at a time, and waits for more.
#[inline(always)]
fn unpack<V: Vnni, const VECTORS: usize, const BITS: usize>(v: V, codes: &[u8]) -> Unpacked<V, VECTORS> {
    let mut weights = [[v.splat(0); VECTORS]; LANE_GROUPS];
    for index in 0..LANE_GROUPS * BITS / 8 {
        for line in (0..LANE_GROUP_BYTES).step_by(64) {
            let ahead = index * LANE_GROUP_BYTES + line + PREFETCH_DISTANCE;
            v.prefetch(codes.as_ptr().wrapping_add(ahead));
        }
        for vector in 0..VECTORS {
            let bytes = v.load(&codes[index * LANE_GROUP_BYTES + vector * 4 * V::LANES..]);
            if BITS == 4 {
                // The low halves are columns 8 i to 8 i + 3, the high halves the next four.
                let [low, high] = v.halves(bytes);
                weights[2 * index][vector] = low;
                weights[2 * index + 1][vector] = high;
            } else {
                weights[index][vector] = bytes;
            }
        }
    }
    weights
}

/// The groups of a block.
#[inline(always)]
fn load_groups<V: Vnni, const VECTORS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    v: V,
    weight: &QuantizedPanel<'_>,
    block: usize,
) -> [Groups<V, GROUPS>; VECTORS] {
    // Loops: a closure would not be compiled with the instructions of the function that this one is inlined into.
    let none = Groups { scales: [v.zero(); GROUPS], zero_points: [v.splat(0); GROUPS] };
    let mut all = [none; VECTORS];
    for (vector, groups) in all.iter_mut().enumerate() {
        for index in 0..GROUPS {
            let group = block / weight.blocks_per_group * GROUPS + index;
            let first = group * PANEL_ROWS + vector * V::LANES;
            groups.scales[index] = v.load_halves(&weight.panel.scales[first..]);
            if let (true, Some(zero_points)) = (ZERO_POINTS, weight.panel.zero_points) {
                groups.zero_points[index] = v.negated(v.load_bytes(&zero_points[first..]));
            }
        }
    }
    all
}

/// Prefetches the scales that follow those of a block at the prefetch distance.
#[inline(always)]
pub(super) fn prefetch_scales<V: Vnni, const BITS: usize, const GROUPS: usize>(
    v: V,
    weight: &QuantizedPanel<'_>,
    block: usize,
) {
    let group = (block + PREFETCH_DISTANCE / block_bytes(BITS)) / weight.blocks_per_group * GROUPS;
    v.prefetch(weight.panel.scales.as_ptr().wrapping_add(group * PANEL_ROWS));
}
