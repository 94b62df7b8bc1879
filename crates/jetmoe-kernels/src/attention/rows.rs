//! Rows of a cache: how a key or value is stored, and how kernels load 16 numbers of one.

use half::f16;
use half::slice::HalfFloatSliceExt;
use jetmoe_format::CacheFormat;

use crate::simd::{LANES, Simd};

/// The largest code of a row with a scale.
const LARGEST_CODE: f32 = 127.0;

/// Stores a key or value in a row of a cache. A row of 8-bit integers that holds infinity or NaN has the scale NaN.
#[inline(always)]
pub(super) fn encode_row(format: CacheFormat, numbers: &[f32], row: &mut [u8]) {
    match format {
        CacheFormat::F32 => {
            for (bytes, number) in row.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                *bytes = number.to_le_bytes();
            }
        }
        CacheFormat::F16 => {
            let mut halves = [f16::ZERO; LANES];
            let parts = row.chunks_mut(2 * LANES).zip(numbers.chunks(LANES));
            for (bytes, numbers) in parts {
                let halves = &mut halves[..numbers.len()];
                halves.convert_from_f32_slice(numbers);
                for (bytes, half) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                    *bytes = half.to_le_bytes();
                }
            }
        }
        CacheFormat::Int8 => {
            let (codes, scale_bytes) = row.split_at_mut(numbers.len());
            let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
            let is_finite = numbers.iter().fold(true, |all, number| all & number.is_finite());
            let scale = if is_finite { largest / LARGEST_CODE } else { f32::NAN };
            // of a row of zeros, or of numbers so small that the factor overflows, every code is 0
            let factor = Some(LARGEST_CODE / largest).filter(|factor| factor.is_finite()).unwrap_or(0.0);
            for (code, number) in codes.iter_mut().zip(numbers) {
                *code = ((number * factor).round_ties_even() as i8).cast_unsigned();
            }
            scale_bytes.copy_from_slice(&scale.to_le_bytes());
        }
    }
}

/// Reads a key or value from a row of a cache.
pub fn decode_cache_row(format: CacheFormat, row: &[u8], numbers: &mut [f32]) {
    match format {
        CacheFormat::F32 => {
            for (number, bytes) in numbers.iter_mut().zip(row.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
        CacheFormat::F16 => {
            for (number, bytes) in numbers.iter_mut().zip(row.as_chunks::<2>().0) {
                *number = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        CacheFormat::Int8 => {
            let scale = scale_of_row(row);
            for (number, code) in numbers.iter_mut().zip(row) {
                *number = f32::from(code.cast_signed()) * scale;
            }
        }
    }
}

/// The scale of a row of 8-bit integers: its last four bytes.
#[inline(always)]
pub(super) fn scale_of_row(row: &[u8]) -> f32 {
    row.last_chunk::<4>().map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes))
}

/// Keys or values of a tile.
pub(super) trait Rows: Copy {
    /// 16 numbers as they are stored.
    type Block;

    /// The whole blocks of a row.
    fn row(&self, index: usize) -> &[Self::Block];

    fn load<S: Simd>(simd: S, block: &Self::Block) -> S::Floats;
}

/// Rows of a cache.
#[derive(Clone, Copy)]
pub(super) struct CachedRows<'a, const BLOCK_BYTES: usize> {
    pub(super) bytes: &'a [u8],
    pub(super) row_bytes: usize,
}

impl<const BLOCK_BYTES: usize> Rows for CachedRows<'_, BLOCK_BYTES> {
    type Block = [u8; BLOCK_BYTES];

    #[inline(always)]
    fn row(&self, index: usize) -> &[Self::Block] {
        self.bytes[index * self.row_bytes..][..self.row_bytes].as_chunks().0
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, block: &Self::Block) -> S::Floats {
        const { assert!(BLOCK_BYTES == 4 * LANES || BLOCK_BYTES == 2 * LANES || BLOCK_BYTES == LANES) };
        // the widths of float32, float16 and 8-bit integers
        if let Some(block) = block.first_chunk::<{ 4 * LANES }>() {
            simd.load_bytes(block)
        } else if let Some(block) = block.first_chunk::<{ 2 * LANES }>() {
            simd.load_halves(block)
        } else if let Some(block) = block.first_chunk::<LANES>() {
            simd.load_codes(block)
        } else {
            simd.splat(0.0)
        }
    }
}

/// Rows that were widened to float32, padded with zeros to whole blocks.
#[derive(Clone, Copy)]
pub(super) struct WideRows<'a> {
    pub(super) numbers: &'a [[f32; LANES]],
    /// Of each row.
    pub(super) blocks: usize,
}

impl Rows for WideRows<'_> {
    type Block = [f32; LANES];

    #[inline(always)]
    fn row(&self, index: usize) -> &[Self::Block] {
        &self.numbers[index * self.blocks..][..self.blocks]
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, block: &Self::Block) -> S::Floats {
        simd.load(block)
    }
}

/// Widens rows of a cache, without the scales of 8-bit integers.
#[inline(always)]
pub(super) fn widen<S: Simd>(
    simd: S,
    format: CacheFormat,
    (bytes, row_bytes): (&[u8], usize),
    channels: usize,
    wide: &mut [[f32; LANES]],
) {
    let blocks = channels.div_ceil(LANES);
    match format {
        CacheFormat::F32 => {
            widen_blocks::<S, { 4 * LANES }>(simd, (bytes, row_bytes), channels, wide, blocks)
        }
        CacheFormat::F16 => {
            widen_blocks::<S, { 2 * LANES }>(simd, (bytes, row_bytes), channels, wide, blocks)
        }
        CacheFormat::Int8 => widen_blocks::<S, LANES>(simd, (bytes, row_bytes), channels, wide, blocks),
    }
}

#[inline(always)]
fn widen_blocks<S: Simd, const BLOCK_BYTES: usize>(
    simd: S,
    (bytes, row_bytes): (&[u8], usize),
    channels: usize,
    wide: &mut [[f32; LANES]],
    blocks: usize,
) {
    let number_bytes = BLOCK_BYTES / LANES;
    for (row, wide) in bytes.chunks_exact(row_bytes).zip(wide.chunks_exact_mut(blocks)) {
        let (whole, rest) = row[..channels * number_bytes].as_chunks::<BLOCK_BYTES>();
        for (block, wide) in whole.iter().zip(wide.iter_mut()) {
            simd.store(wide, CachedRows::<BLOCK_BYTES>::load(simd, block));
        }
        if let Some(wide) = wide.get_mut(whole.len()) {
            let mut block = [0; BLOCK_BYTES];
            block[..rest.len()].copy_from_slice(rest);
            simd.store(wide, CachedRows::<BLOCK_BYTES>::load(simd, &block));
        }
    }
}
