//! AMX: products of bfloat16 numbers, 16 input rows times 16 rows of a panel in one instruction, for experts that many rows chose.
//!
//! A panel is dequantized to bfloat16, some blocks at a time, and multiplied with rows that are rounded to bfloat16; sums are
//! float32. The intrinsics are not stable in Rust yet, so tile instructions are written in assembly.

mod dequantize;
mod tiles;

use jetmoe_format::{PANEL_ROWS, PackedLayout};

use self::dequantize::{Dequantized, Dequantizer, UNITS};
use self::tiles::{PRODUCTS, Tiles};
use super::{QuantizedPanel, dispatch_code_width};
use crate::packed_input::{ActivationRows, STRIP_ROWS};

// Experts with few rows, and bfloat16 weights, which take float32 input, are multiplied without tiles.
pub(super) use super::avx512vnni::{gate, multiply_bf16, multiply_codes, multiply_float32, quantize};

/// Blocks that are dequantized at a time. Twice 16 KiB for these and the next ones leave 16 KiB of the first-level cache for the
/// input rows and sums of a strip.
const CHUNK: usize = 8;

/// Chunks of a panel before those of the next one.
const SEGMENT: usize = 8;

/// Chunks that are prefetched ahead.
const AHEAD: usize = 3;

/// A panel and where its products with the rows of a tile are stored.
type Target<'p, 'y> = (QuantizedPanel<'p>, &'y mut [f32]);

/// The products of a tile with some panels of a weight.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_bfloats(
    layout: &PackedLayout,
    panels: &mut [Target<'_, '_>],
    rows: &ActivationRows<'_>,
) {
    let Some((weight, _)) = panels.first() else { return };
    let weight = *weight;
    dispatch_code_width!(weight, multiply_panels(layout, panels, rows));
}

/// While a chunk, some blocks of a panel, is multiplied with all rows, the next chunk is dequantized, a few lines after each tile product:
/// the units for tiles and for vectors work at the same time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_panels<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    layout: &PackedLayout,
    panels: &mut [Target<'_, '_>],
    rows: &ActivationRows<'_>,
) {
    let (mut even, mut odd) = (Dequantized::uninitialized(), Dequantized::uninitialized());
    let (mut chunk, mut next) = (&mut even, &mut odd);
    let order = Order { blocks: layout.blocks(), panels: panels.len() };
    let mut tiles = Tiles::new();
    let strips = rows.tile.rows.div_ceil(STRIP_ROWS);
    let first = order.chunk(0);
    Dequantizer::<BITS, GROUPS, ZERO_POINTS>::new(panels, first, first)
        .dequantize(UNITS * first.blocks, chunk);
    for index in 0..order.chunks() {
        let [current, following, later] = [0, 1, AHEAD].map(|ahead| order.chunk(index + ahead));
        let mut dequantizer = Dequantizer::<BITS, GROUPS, ZERO_POINTS>::new(panels, following, later);
        let products = strips * current.blocks * PRODUCTS;
        let mut pace = Pace { units: UNITS * following.blocks, products, due: 0 };
        let (sums, _) = panels[current.panel].1.as_chunks_mut::<PANEL_ROWS>();
        for (strip, sums) in sums.chunks_mut(STRIP_ROWS).enumerate() {
            let x = &rows.strip(strip)[current.first * sums.len()..];
            let mut blocks = chunk.0[..current.blocks].iter().zip(x.chunks_exact(sums.len())).peekable();
            let mut between = || dequantizer.dequantize(pace.next(), next);
            // SAFETY: the weights of the chunk are written, and each `x` has a row for each of the sums.
            unsafe {
                tiles.begin(sums, current.first == 0);
                if let Some((weights, x)) = blocks.peek() {
                    tiles.load(weights, x);
                }
                while blocks.next().is_some() {
                    tiles.multiply(blocks.peek().copied(), &mut between);
                }
                tiles.end(sums);
            }
        }
        std::mem::swap(&mut chunk, &mut next);
    }
}

/// Some blocks of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    panel: usize,
    /// The first block.
    first: usize,
    blocks: usize,
}

/// In which order the chunks of some panels are multiplied. Segments of all panels, one panel after the other, come before the next
/// segments, so that these blocks of the rows stay in the second-level cache and the codes of a segment are read in a row.
struct Order {
    blocks: usize,
    panels: usize,
}

impl Order {
    fn chunks(&self) -> usize {
        self.panels * self.blocks.div_ceil(CHUNK)
    }

    /// A chunk that is there, or one without blocks of some panel.
    fn chunk(&self, index: usize) -> Chunk {
        let per_segment = SEGMENT * self.panels;
        let (segment, index) = (index / per_segment, index % per_segment);
        let chunks = self.blocks.div_ceil(CHUNK).saturating_sub(segment * SEGMENT).min(SEGMENT);
        if index >= chunks * self.panels {
            return Chunk { panel: 0, first: 0, blocks: 0 };
        }
        let first = (segment * SEGMENT + index % chunks) * CHUNK;
        Chunk { panel: index / chunks, first, blocks: CHUNK.min(self.blocks - first) }
    }
}

/// Distributes what is dequantized evenly over products.
struct Pace {
    units: usize,
    products: usize,
    due: usize,
}

impl Pace {
    /// How many units follow the next product.
    #[inline(always)]
    fn next(&mut self) -> usize {
        self.due += self.units;
        let mut count = 0;
        while self.due >= self.products {
            self.due -= self.products;
            count += 1;
        }
        count
    }
}
