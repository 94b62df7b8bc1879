//! Panels of integer codes times rows in float32. The loops are inlined into a function per instruction set, where the
//! compiler vectorizes them.

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, Panel};

use super::LANE_GROUP_BYTES;

/// Rows of a tile: each load of a weight serves all of them.
pub(crate) const TILE_ROWS: usize = 4;

/// Rows in float32, with columns padded to whole blocks.
#[derive(Debug)]
pub(crate) struct FloatRows {
    /// `[columns]` for one row; for more, `[tiles, columns, 4]`, padded to whole tiles.
    values: Vec<f32>,
    count: usize,
    columns: usize,
}

impl FloatRows {
    /// Packs rows of `inputs` columns.
    pub(crate) fn pack(x: &[f32], inputs: usize, columns: usize) -> Self {
        let count = x.len() / inputs;
        if count == 1 {
            let mut values = vec![0.0; columns];
            values[..inputs].copy_from_slice(x);
            return FloatRows { values, count, columns };
        }
        let mut values = vec![0.0; count.div_ceil(TILE_ROWS) * TILE_ROWS * columns];
        let tiles = values.chunks_exact_mut(TILE_ROWS * columns);
        for (tile, rows) in tiles.zip(x.chunks(TILE_ROWS * inputs)) {
            let (tile, _) = tile.as_chunks_mut::<TILE_ROWS>();
            for (index, row) in rows.chunks_exact(inputs).enumerate() {
                for (column, x) in tile.iter_mut().zip(row) {
                    column[index] = *x;
                }
            }
        }
        FloatRows { values, count, columns }
    }
}

/// Rows of the panel that are computed together: their sums stay in registers.
const LANES: usize = PANEL_ROWS / 2;

/// One number for each of these rows.
type Floats = [f32; LANES];

/// Columns of a panel that are dequantized at once. With [`PANELS`](crate::linear_float32) panels they fit in the first two
/// caches.
const CHUNK: usize = 2 * BLOCK_INPUTS;

/// Computes the products of rows with consecutive panels, `[panels, rows, 32]`. `FUSED` where the processor has fused
/// multiply-add.
#[inline(always)]
pub(super) fn multiply<const FUSED: bool>(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    // Loops, not `for_each`: a closure that is not inlined would not be compiled for the instruction set.
    match (rows.count == 1, layout.scheme.format.bits()) {
        (true, 4) => {
            for (panel, products) in panels.iter().zip(products.chunks_exact_mut(PANEL_ROWS)) {
                multiply_row::<4, FUSED>(panel, layout, &rows.values, products);
            }
        }
        (true, _) => {
            for (panel, products) in panels.iter().zip(products.chunks_exact_mut(PANEL_ROWS)) {
                multiply_row::<8, FUSED>(panel, layout, &rows.values, products);
            }
        }
        (false, 4) => multiply_rows::<4, FUSED>(panels, layout, rows, products),
        (false, _) => multiply_rows::<8, FUSED>(panels, layout, rows, products),
    }
}

/// One row is bound by memory: codes are multiplied while they are unpacked.
#[inline(always)]
fn multiply_row<const BITS: usize, const FUSED: bool>(
    panel: &Panel<'_, f32>,
    layout: &PackedLayout,
    x: &[f32],
    products: &mut [f32],
) {
    let (lane_groups, _) = panel.codes.as_chunks::<LANE_GROUP_BYTES>();
    let (products, _) = products.as_chunks_mut::<LANES>();
    let columns_per_group = layout.group_size().unwrap_or(BLOCK_INPUTS);
    let groups = lane_groups.chunks(columns_per_group * BITS / 32).zip(x.chunks(columns_per_group));
    products.as_flattened_mut().fill(0.0);
    for (group, (lane_groups, x)) in groups.enumerate() {
        let (scales, zero_points) = group_of::<BITS>(panel, layout, group);
        let sum_of_x: f32 = x.iter().sum();
        for (half, products) in products.iter_mut().enumerate() {
            // Four variables, because the compiler does not keep an array of arrays in registers.
            let [mut first, mut second, mut third, mut fourth] = [[0.0; LANES]; 4];
            for (lane_group, x) in lane_groups.iter().zip(x.chunks_exact(32 / BITS)) {
                let (lanes, _) = lane_group.as_chunks::<4>();
                let lanes: [u32; LANES] =
                    std::array::from_fn(|row| u32::from_le_bytes(lanes[half * LANES + row]));
                if BITS == 4 {
                    // A code is not moved to the lowest bits: what it is multiplied with is divided by its power of two, which
                    // is exact.
                    add::<FUSED>(&lanes.map(|lane| (lane & 0xF) as f32), x[0], &mut first);
                    add::<FUSED>(&lanes.map(|lane| (lane & 0xF00) as f32), x[1] / 256.0, &mut second);
                    add::<FUSED>(&lanes.map(|lane| (lane & 0xF_0000) as f32), x[2] / 65_536.0, &mut third);
                    add::<FUSED>(
                        &lanes.map(|lane| (lane & 0xF00_0000) as f32),
                        x[3] / 16_777_216.0,
                        &mut fourth,
                    );
                    add::<FUSED>(&lanes.map(|lane| (lane & 0xF0) as f32), x[4] / 16.0, &mut first);
                    add::<FUSED>(&lanes.map(|lane| (lane & 0xF000) as f32), x[5] / 4096.0, &mut second);
                    add::<FUSED>(
                        &lanes.map(|lane| (lane & 0xF0_0000) as f32),
                        x[6] / 1_048_576.0,
                        &mut third,
                    );
                    add::<FUSED>(&lanes.map(|lane| (lane >> 28) as f32), x[7], &mut fourth);
                } else {
                    let lanes = lanes.map(|lane| (lane ^ 0x8080_8080).cast_signed());
                    add::<FUSED>(&lanes.map(|lane| (lane << 24 >> 24) as f32), x[0], &mut first);
                    add::<FUSED>(&lanes.map(|lane| (lane << 16 >> 24) as f32), x[1], &mut second);
                    add::<FUSED>(&lanes.map(|lane| (lane << 8 >> 24) as f32), x[2], &mut third);
                    add::<FUSED>(&lanes.map(|lane| (lane >> 24) as f32), x[3], &mut fourth);
                }
            }
            // Σ (code − zero point) · x = Σ code · x − zero point · Σ x
            let (scales, zero_points) = (&scales[half], &zero_points[half]);
            for row in 0..LANES {
                let sum = (first[row] + second[row]) + (third[row] + fourth[row]);
                products[row] += (sum - zero_points[row] * sum_of_x) * scales[row];
            }
        }
    }
}

/// Several rows are bound by arithmetic: a chunk of the panels is dequantized once for all of them.
#[inline(always)]
fn multiply_rows<const BITS: usize, const FUSED: bool>(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    let FloatRows { values, count, columns } = rows;
    let (columns, panel_size) = (*columns, count * PANEL_ROWS);
    let (values, _) = values.as_chunks::<TILE_ROWS>();
    products.fill(0.0);
    let mut chunks = vec![[[[0.0; LANES]; 2]; CHUNK]; panels.len()];
    for first in (0..columns).step_by(CHUNK) {
        let width = CHUNK.min(columns - first);
        for (panel, chunk) in panels.iter().zip(&mut chunks) {
            for (block, weights) in chunk[..width].chunks_exact_mut(BLOCK_INPUTS).enumerate() {
                dequantize_block::<BITS>(panel, layout, first / BLOCK_INPUTS + block, weights);
            }
        }
        for (tile, x) in values.chunks_exact(columns).enumerate() {
            let x = &x[first..][..width];
            let tile_size = TILE_ROWS.min(count - tile * TILE_ROWS) * PANEL_ROWS;
            for (weights, products) in chunks.iter().zip(products.chunks_exact_mut(panel_size)) {
                let products = &mut products[tile * TILE_ROWS * PANEL_ROWS..][..tile_size];
                let (products, _) = products.as_chunks_mut::<LANES>();
                for half in 0..2 {
                    let sums = multiply_tile::<FUSED>(x, &weights[..width], half);
                    // The last tile may have fewer rows.
                    for (products, sums) in products.chunks_exact_mut(2).zip(&sums) {
                        for (product, sum) in products[half].iter_mut().zip(sums) {
                            *product += sum;
                        }
                    }
                }
            }
        }
    }
}

/// Products of the rows of a tile with half a panel.
#[inline(always)]
fn multiply_tile<const FUSED: bool>(
    x: &[[f32; TILE_ROWS]],
    weights: &[[Floats; 2]],
    half: usize,
) -> [Floats; TILE_ROWS] {
    // Variables, because the compiler does not keep an array of arrays in registers.
    let [mut first, mut second, mut third, mut fourth] = [[0.0; LANES]; TILE_ROWS];
    for (x, weights) in x.iter().zip(weights) {
        let weights = &weights[half];
        add::<FUSED>(weights, x[0], &mut first);
        add::<FUSED>(weights, x[1], &mut second);
        add::<FUSED>(weights, x[2], &mut third);
        add::<FUSED>(weights, x[3], &mut fourth);
    }
    [first, second, third, fourth]
}

/// Adds weights times a factor.
#[inline(always)]
fn add<const FUSED: bool>(weights: &Floats, factor: f32, sums: &mut Floats) {
    *sums = std::array::from_fn(|row| match FUSED {
        // Where the processor has no instruction for it, it is a slow function.
        true => weights[row].mul_add(factor, sums[row]),
        false => weights[row] * factor + sums[row],
    });
}

/// Scales and zero points of a group, for both halves of the panel. 8-bit zero points are centred like the codes.
#[inline(always)]
fn group_of<const BITS: usize>(
    panel: &Panel<'_, f32>,
    layout: &PackedLayout,
    group: usize,
) -> ([Floats; 2], [Floats; 2]) {
    let centre = if BITS == 8 { 128.0 } else { 0.0 };
    let (mut scales, mut zero_points) = ([[0.0; LANES]; 2], [[0.0; LANES]; 2]);
    scales.as_flattened_mut().copy_from_slice(&panel.scales[group * PANEL_ROWS..][..PANEL_ROWS]);
    match panel.zero_points {
        Some(stored) => {
            let stored = &stored[group * PANEL_ROWS..][..PANEL_ROWS];
            for (zero_point, stored) in zero_points.as_flattened_mut().iter_mut().zip(stored) {
                *zero_point = f32::from(*stored) - centre;
            }
        }
        None => zero_points = [[f32::from(layout.scheme.format.default_zero_point()) - centre; LANES]; 2],
    }
    (scales, zero_points)
}

/// Dequantizes a block of a panel.
#[inline(always)]
fn dequantize_block<const BITS: usize>(
    panel: &Panel<'_, f32>,
    layout: &PackedLayout,
    block: usize,
    weights: &mut [[Floats; 2]],
) {
    let columns_per_group = layout.group_size().unwrap_or(BLOCK_INPUTS);
    let block_bytes = layout.block_bytes();
    let (lane_groups, _) = panel.codes[block * block_bytes..][..block_bytes].as_chunks::<LANE_GROUP_BYTES>();
    let mut group = (usize::MAX, ([[0.0; LANES]; 2], [[0.0; LANES]; 2]));
    for (index, (lane_group, weights)) in
        lane_groups.iter().zip(weights.chunks_exact_mut(32 / BITS)).enumerate()
    {
        let needed = (block * BLOCK_INPUTS + index * 32 / BITS) / columns_per_group;
        if group.0 != needed {
            group = (needed, group_of::<BITS>(panel, layout, needed));
        }
        let (_, (scales, zero_points)) = &group;
        let (lanes, _) = lane_group.as_chunks::<4>();
        for half in 0..2 {
            let lanes: [u32; LANES] =
                std::array::from_fn(|row| u32::from_le_bytes(lanes[half * LANES + row]));
            for (column, weights) in weights.iter_mut().enumerate() {
                let codes: Floats = if BITS == 4 {
                    let shift = column % 4 * 8 + column / 4 * 4;
                    lanes.map(|lane| (lane >> shift & 0xF) as f32)
                } else {
                    let shift = 24 - 8 * column;
                    lanes.map(|lane| ((lane ^ 0x8080_8080).cast_signed() << shift >> 24) as f32)
                };
                weights[half] =
                    std::array::from_fn(|row| (codes[row] - zero_points[half][row]) * scales[half][row]);
            }
        }
    }
}
