//! Matching sizes, with the edge cases of a kernel: few or odd columns, experts with no rows or with all of them, subnormal
//! numbers, infinities and NaN.

use arbitrary::{Arbitrary, Unstructured};
use jetmoe_format::{BLOCK_INPUTS, PackedLayout, RowOrder, Scheme, WeightFormat};
use jetmoe_kernels::*;

use crate::weights::{OwnedWeight, Random, activate, by_definition};

#[derive(Debug, Arbitrary)]
pub(crate) struct ValidCase {
    operation: Operation,
    seed: u64,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=4))]
    experts: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=4))]
    k: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=40))]
    rows: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=72))]
    outputs: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=160))]
    inputs: usize,
    weight: WeightKind,
    /// Every row chose this expert and the following ones.
    hot: Option<u8>,
    /// Power of two that the input is multiplied with; below −126 some numbers are subnormal.
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(-140..=16))]
    exponent: i32,
    /// Elements of the input that are replaced.
    special_values: Vec<(u16, SpecialValue)>,
    several_threads: bool,
}

#[derive(Debug, Arbitrary)]
enum Operation {
    Linear,
    ExpertLinear,
    ExpertLinearSum,
    ExpertMlp {
        #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.choose(Activation::ALL).copied())]
        activation: Activation,
        down: WeightKind,
    },
    GatherRows,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct WeightKind {
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.choose(&SCHEMES).copied())]
    scheme: (i64, i64),
    zero_points: bool,
}

impl WeightKind {
    fn scheme(self) -> Scheme {
        let (bits, group_size) = self.scheme;
        PackedLayout::scheme(bits, group_size, self.zero_points).unwrap()
    }
}

/// Bits and group size.
const SCHEMES: [(i64, i64); 9] =
    [(4, 16), (4, 32), (4, 64), (4, 128), (8, 16), (8, 32), (8, 64), (8, 128), (16, 0)];

#[derive(Debug, Clone, Copy, Arbitrary)]
enum SpecialValue {
    Nan,
    Infinity,
    NegativeInfinity,
    Zero,
}

/// Two threads without their cost: the calls run sequentially.
struct Sequential;

impl Threads for Sequential {
    fn count(&self) -> usize {
        2
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        work(0);
        work(1);
    }
}

/// An expected result, NaN where the result must not be finite, and the largest permitted difference.
#[derive(Debug, Clone, Copy)]
struct Expected {
    value: f64,
    bound: f64,
}

/// The share of a sum's terms, in magnitude, that the order of float32 additions may change.
const ORDER: f64 = 3e-5;
/// Smaller results may be zero: rows with a subnormal scale are quantized to zeros.
const TINY: f64 = 1e-30;

impl Expected {
    const ZERO: Expected = Expected { value: 0.0, bound: TINY };

    fn add(&mut self, gate: f32, other: Expected) {
        self.value += f64::from(gate) * other.value;
        self.bound += f64::from(gate.abs()) * other.bound;
    }

    fn check(self, found: f32, what: &str) {
        if self.value.is_nan() {
            assert!(!found.is_finite(), "{what}: {found}, which must not be finite");
        } else {
            let difference = (f64::from(found) - self.value).abs();
            assert!(difference <= self.bound, "{what}: {found}, not {self:?}");
        }
    }
}

impl ValidCase {
    pub(crate) fn test(&self) {
        let mut random = Random::new(self.seed);
        let experts = match self.operation {
            Operation::Linear | Operation::GatherRows => 1,
            _ => self.experts,
        };
        let order = match self.operation {
            Operation::ExpertMlp { .. } => RowOrder::Halves,
            _ => RowOrder::AsStored,
        };
        let outputs = if order == RowOrder::Halves { 2 * self.outputs } else { self.outputs };
        let layout =
            PackedLayout { experts, outputs, inputs: self.inputs, scheme: self.weight.scheme(), order };
        let weight = OwnedWeight::random(layout, self.weight.zero_points, &mut random);

        let k = self.k.min(experts);
        let chosen: Vec<i64> = match self.hot {
            Some(hot) => (0..self.rows * k)
                .map(|assignment| ((usize::from(hot) + assignment % k) % experts) as i64)
                .collect(),
            None => (0..self.rows).flat_map(|_| random.experts(experts, k)).collect(),
        };
        let gates = random.floats(chosen.len());
        let top_k = TopK { experts: &chosen, k };
        let view = weight.view();
        let assignments = chosen.iter().map(|expert| *expert as usize).enumerate();
        match &self.operation {
            Operation::Linear => {
                let x = self.x(self.rows, &mut random);
                let expected =
                    x.chunks_exact(self.inputs).flat_map(|row| products(&weight, 0, row)).collect();
                self.check_every_isa(expected, |context, y| linear(context, &x, &view, y));
            }
            Operation::ExpertLinear => {
                let x = self.x(self.rows, &mut random);
                let row = |assignment: usize| &x[assignment / k * self.inputs..][..self.inputs];
                let expected = assignments
                    .flat_map(|(assignment, expert)| products(&weight, expert, row(assignment)))
                    .collect();
                self.check_every_isa(expected, |context, y| expert_linear(context, &x, top_k, &view, y));
            }
            Operation::ExpertLinearSum => {
                let x = self.x(chosen.len(), &mut random);
                let mut expected = vec![Expected::ZERO; self.rows * outputs];
                for (assignment, expert) in assignments {
                    let products = products(&weight, expert, &x[assignment * self.inputs..][..self.inputs]);
                    add(&mut expected[assignment / k * outputs..], gates[assignment], products);
                }
                self.check_every_isa(expected, |context, y| {
                    expert_linear_sum(context, &x, top_k, &gates, &view, y)
                });
            }
            Operation::ExpertMlp { activation, down } => {
                let layout = PackedLayout {
                    outputs: self.inputs,
                    inputs: self.outputs,
                    scheme: down.scheme(),
                    order: RowOrder::AsStored,
                    ..layout
                };
                let down = OwnedWeight::random(layout, down.zero_points, &mut random);
                let x = self.x(self.rows, &mut random);
                let mut expected = vec![Expected::ZERO; self.rows * self.inputs];
                for (assignment, expert) in assignments {
                    let row = &x[assignment / k * self.inputs..][..self.inputs];
                    let products = gated(&weight, &down, *activation, expert, row);
                    add(&mut expected[assignment / k * self.inputs..], gates[assignment], products);
                }
                let mlp = Mlp { gate_and_up: view, down: down.view(), activation: *activation };
                self.check_every_isa(expected, |context, y| expert_mlp(context, &x, top_k, &gates, &mlp, y));
            }
            Operation::GatherRows => {
                let row_indices: Vec<i64> = (0..self.rows).map(|_| random.0.i64(-7..8)).collect();
                let fits = row_indices.iter().all(|row| (0..outputs as i64).contains(row));
                let mut y = vec![0.0; self.rows * self.inputs];
                assert_eq!(gather_rows(&row_indices, &view, &mut y).is_ok(), fits);
                if fits {
                    for (row, y) in row_indices.iter().zip(y.chunks_exact(self.inputs)) {
                        assert_eq!(*y, weight.matrix(0)[*row as usize * self.inputs..][..self.inputs]);
                    }
                }
            }
        }
    }

    fn x(&self, rows: usize, random: &mut Random) -> Vec<f32> {
        let scale = 2f64.powi(self.exponent);
        let mut x: Vec<f32> =
            random.floats(rows * self.inputs).into_iter().map(|x| (f64::from(x) * scale) as f32).collect();
        for (place, value) in &self.special_values {
            let place = usize::from(*place) % x.len().max(1);
            if let Some(x) = x.get_mut(place) {
                *x = match value {
                    SpecialValue::Nan => f32::NAN,
                    SpecialValue::Infinity => f32::INFINITY,
                    SpecialValue::NegativeInfinity => f32::NEG_INFINITY,
                    SpecialValue::Zero => 0.0,
                };
            }
        }
        x
    }

    /// Compares `Isa::Generic` with the definition, and the other instruction sets with `Isa::Generic`. Of AMX, which rounds to
    /// bfloat16, only where numbers are finite: the tests of the crate bound its differences.
    fn check_every_isa(
        &self,
        mut expected: Vec<Expected>,
        operate: impl Fn(ExecContext<'_>, &mut [f32]) -> Result<()>,
    ) {
        let threads: &dyn Threads = if self.several_threads { &Sequential } else { &CallingThread };
        for isa in Isa::available() {
            // Every element must be written.
            let mut y = vec![f32::NAN; expected.len()];
            operate(ExecContext { isa, threads }, &mut y).unwrap();
            for (expected, y) in expected.iter_mut().zip(y) {
                if matches!(isa, Isa::Amx { .. }) {
                    assert_eq!(y.is_finite(), !expected.value.is_nan(), "{isa}: {y}, not {expected:?}");
                    continue;
                }
                expected.check(y, &isa.to_string());
                if isa == Isa::Generic && y.is_finite() {
                    expected.value = f64::from(y);
                }
            }
        }
    }
}

fn add(sums: &mut [Expected], gate: f32, products: Vec<Expected>) {
    for (sum, product) in sums.iter_mut().zip(products) {
        sum.add(gate, product);
    }
}

/// The magnitudes of the terms of each product of a row. Quantization at most doubles a number.
fn magnitudes(weight: &OwnedWeight, expert: usize, row: &[f32]) -> Vec<f64> {
    let matrix = weight.matrix(expert).chunks_exact(weight.layout.inputs);
    let terms = |weights: &[f32]| {
        weights.iter().zip(row).map(|(w, x)| 2.0 * f64::from(w.abs()) * f64::from(x.abs())).sum()
    };
    matrix.map(terms).collect()
}

fn products(weight: &OwnedWeight, expert: usize, row: &[f32]) -> Vec<Expected> {
    if !row.iter().all(|x| x.is_finite()) {
        return vec![Expected { value: f64::NAN, bound: 0.0 }; weight.layout.outputs];
    }
    let values = by_definition(weight, expert, row).into_iter();
    let expected = |(value, size)| Expected { value, bound: TINY + ORDER * size };
    values.zip(magnitudes(weight, expert, row)).map(expected).collect()
}

fn gated(
    up: &OwnedWeight,
    down: &OwnedWeight,
    activation: Activation,
    expert: usize,
    row: &[f32],
) -> Vec<Expected> {
    let products = products(up, expert, row);
    if products.iter().any(|product| product.value.is_nan()) {
        return vec![Expected { value: f64::NAN, bound: 0.0 }; down.layout.outputs];
    }
    let sizes = magnitudes(up, expert, row);
    let intermediate = down.layout.inputs;
    let gated: Vec<f32> = (0..intermediate)
        .map(|column| {
            let (gate, up) = (products[column].value, products[column + intermediate].value);
            (activate(activation, gate) * up) as f32
        })
        .collect();
    // A gated value between two of its 255 steps may be rounded either way.
    let step = if down.layout.scheme.format == WeightFormat::Bf16 { 0.0 } else { 0.01 };
    let bounds: Vec<f64> = (0..intermediate)
        .map(|column| {
            let block = gated.chunks(BLOCK_INPUTS).nth(column / BLOCK_INPUTS).unwrap();
            let largest = block.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            TINY + step * f64::from(largest) + 4.0 * ORDER * sizes[column] * sizes[column + intermediate]
        })
        .collect();
    let matrix = down.matrix(expert).chunks_exact(intermediate);
    let moved =
        matrix.map(|weights| weights.iter().zip(&bounds).map(|(w, b)| f64::from(w.abs()) * b).sum::<f64>());
    let mut expected = self::products(down, expert, &gated);
    for (expected, moved) in expected.iter_mut().zip(moved) {
        expected.bound += moved;
    }
    expected
}
