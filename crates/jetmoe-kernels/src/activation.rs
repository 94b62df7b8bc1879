//! What stands between the two products of a gated MLP.

/// The activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Every activation with its name.
    pub const NAMES: &'static [(&'static str, Activation)] = &[
        ("silu", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
    ];

    /// The activation of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, activation)| *activation == self).map_or("", |(name, _)| name)
    }

    /// activation(gate) · up for the rows of a panel whose first half of places are gates: from `[rows, 32]` to
    /// columns of `[rows, 32]` that begin at `first`, 0 or 16.
    ///
    /// Inlined into a function for each instruction set, where its loops are vectorised.
    #[inline(always)]
    pub(crate) fn gate(self, products: &[f32], gated: &mut [f32], first: usize) {
        match self {
            Activation::Silu => each(products, gated, first, |x| x / (1.0 + exp(-x))),
            Activation::Gelu => each(products, gated, first, |x| {
                0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
            }),
            Activation::GeluTanh => each(products, gated, first, |x| {
                // √(2/π)
                const FACTOR: f32 = 0.797_884_6;
                let inner = FACTOR * (x + 0.044_715 * x * x * x);
                // ½(1 + tanh(y)) = 1 / (1 + e^(−2y))
                x / (1.0 + exp(-2.0 * inner))
            }),
            Activation::Relu => each(products, gated, first, |x| if x < 0.0 { 0.0 } else { x }),
        }
    }
}

#[inline(always)]
fn each(products: &[f32], gated: &mut [f32], first: usize, activate: impl Fn(f32) -> f32) {
    let (products, _) = products.as_chunks::<32>();
    let (gated, _) = gated.as_chunks_mut::<32>();
    for (products, gated) in products.iter().zip(gated) {
        let (gates, ups) = products.split_at(16);
        for ((gated, gate), up) in gated[first..first + 16].iter_mut().zip(gates).zip(ups) {
            *gated = activate(*gate) * up;
        }
    }
}

/// e^x to within 2 units in the last place, in operations that every vector unit has: x = n ln 2 + r, and a polynomial
/// for e^r. Beyond the range of float32 it stays at that range's ends.
///
/// Inlined, so that a loop over it is vectorised by the instructions that the function around it may use.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // adding it leaves the nearest integer in the lowest bits of the sum
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with so few bits that its multiples are exact
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2.0 - n * LN_2.1;
    // coefficients of Cephes' expf
    let mut polynomial = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        polynomial = polynomial * r + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    (polynomial * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_the_last_places() {
        for step in -8700..=8800 {
            let x = step as f32 / 100.0;
            let (found, expected) = (exp(x), f64::from(x).exp());
            let error = (f64::from(found) - expected).abs() / expected;
            assert!(error < 3e-7, "e^{x} is {found}, not {expected}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn every_activation_is_its_formula() {
        type Formula = fn(f64) -> f64;
        let formulas: [(Activation, Formula); 4] = [
            (Activation::Silu, |x| x / (1.0 + (-x).exp())),
            (Activation::Gelu, |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))),
            (Activation::GeluTanh, |x| {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
            }),
            (Activation::Relu, |x| x.max(0.0)),
        ];
        for (activation, formula) in formulas {
            for step in -60..60 {
                let x = step as f32 / 4.0;
                let mut products = [3.0; 32];
                products[..16].fill(x);
                let mut gated = [0.0; 32];
                activation.gate(&products, &mut gated, 16);
                let expected = 3.0 * formula(f64::from(x));
                let found = f64::from(gated[31]);
                assert!(
                    (found - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                    "{activation:?} of {x}: {found}"
                );
                assert_eq!(gated[..16], [0.0; 16]);
            }
        }
    }
}
