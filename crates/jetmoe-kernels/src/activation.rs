//! The activation functions of a gated MLP.

use strum::{EnumString, IntoStaticStr, VariantArray};

/// The activation function of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x), by the error function
    Gelu,
    /// ½x(1 + tanh(√(2/π)(x + 0.044715x³)))
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Activation {
    /// Every activation.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The activation with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// activation(gate) · up for one panel whose first 16 columns are gates and whose last 16 are up-projections: from
    /// `[rows, 32]` to the 16 columns of `[rows, 32]` that begin at `first`, 0 or 16.
    ///
    /// Inlined into a function per instruction set, where the compiler vectorizes its loops.
    #[inline(always)]
    pub(crate) fn gate(self, products: &[f32], gated: &mut [f32], first: usize) {
        match self {
            Activation::Silu => gate_with(products, gated, first, |x| x / (1.0 + exp(-x))),
            Activation::Gelu => gate_with(products, gated, first, |x| {
                0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
            }),
            Activation::GeluTanh => gate_with(products, gated, first, |x| {
                const SQRT_2_OVER_PI: f32 = 0.797_884_6;
                let inner = SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
                // ½(1 + tanh(y)) = 1 / (1 + e^(−2y))
                x / (1.0 + exp(-2.0 * inner))
            }),
            Activation::Relu => gate_with(products, gated, first, |x| if x < 0.0 { 0.0 } else { x }),
        }
    }
}

#[inline(always)]
fn gate_with(products: &[f32], gated: &mut [f32], first: usize, activate: impl Fn(f32) -> f32) {
    let (products, _) = products.as_chunks::<32>();
    let (gated, _) = gated.as_chunks_mut::<32>();
    for (products, gated) in products.iter().zip(gated) {
        let (gates, ups) = products.split_at(16);
        for ((gated, gate), up) in gated[first..first + 16].iter_mut().zip(gates).zip(ups) {
            *gated = activate(*gate) * up;
        }
    }
}

/// Adding it rounds a float of small magnitude to the nearest integer, ties to even, and leaves that integer in the lowest
/// bits of the sum: the neighbours of 1.5 · 2²³ are 1 apart.
pub(crate) const ROUND_TO_INTEGER: f32 = 12_582_912.0;

/// e^x to within 2 units in the last place. Clamps the result to the range of float32.
///
/// Range reduction: x = n ln 2 + r, so e^x = 2ⁿ · e^r, with a polynomial for e^r. Inlined, so that a loop over it is
/// vectorized with the instructions that the surrounding function enables.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts. The first has so few bits that its products with n are exact.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND_TO_INTEGER;
    let n = shifted - ROUND_TO_INTEGER;
    let r = x - n * LN_2.0 - n * LN_2.1;
    // The coefficients of Cephes' expf.
    let mut polynomial = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        polynomial = polynomial * r + coefficient;
    }
    // 2ⁿ, by adding n to the exponent of 1.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    (polynomial * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests;
