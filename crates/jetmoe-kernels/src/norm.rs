//! The norm before each mixture, and the final one.

use crate::error::length;
use crate::linear::for_each_row;
use crate::simd::{self, LANES, Simd, Work};
use crate::{Error, ExecContext, Result};

/// x / √(mean(x²) + ε) · weight for each row of x `[rows, width]`, with a weight `[width]` (RMSNorm,
/// <https://arxiv.org/abs/1910.07467>).
///
/// # Errors
/// Mismatched sizes.
pub fn rms_norm(
    context: ExecContext<'_>,
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    y: &mut [f32],
) -> Result<()> {
    let width = weight.len();
    if width == 0 {
        return Err(Error::Length { tensor: "the weight of a norm", found: 0, expected: 1 });
    }
    length("x", x.len(), x.len() / width * width)?;
    length("y", y.len(), x.len())?;
    for_each_row(context, y, width, |row, y| {
        simd::run(context.isa, Norm { x: &x[row * width..][..width], weight, epsilon, y });
    });
    Ok(())
}

/// The norm of one row.
struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl Work for Norm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Norm { x, weight, epsilon, y } = self;
        let [squares] = dot_products(simd, x, [x]);
        let factor = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = weight * (x * factor);
        }
    }
}

/// The dot products of a row with `N` others of its length, at most 4.
#[inline(always)]
pub(crate) fn dot_products<S: Simd, const N: usize>(simd: S, x: &[f32], others: [&[f32]; N]) -> [f32; N] {
    const { assert!(N <= 4) }
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [simd.splat(0.0); 4];
    for (index, block) in blocks.iter().enumerate() {
        let block = simd.load(block);
        for (sum, other) in sums.iter_mut().zip(others) {
            let (other, _) = other.as_chunks::<LANES>();
            *sum = simd.mul_add(block, simd.load(&other[index]), *sum);
        }
    }
    if !rest.is_empty() {
        let block = simd.load(&padded(rest));
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum = simd.mul_add(block, simd.load(&padded(&other[x.len() - rest.len()..])), *sum);
        }
    }
    let sums = simd.sums(sums);
    let mut products = [0.0; N];
    products.copy_from_slice(&sums[..N]);
    products
}

/// The last numbers of a row, with zeros behind them.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut block = [0.0; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}
