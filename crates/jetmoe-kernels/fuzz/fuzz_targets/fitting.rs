//! Sizes that fit together, with what makes a kernel stumble: few or odd columns, experts that nobody or everybody chose,
//! tiny numbers, and what is no number.

use arbitrary::{Arbitrary, Unstructured};
use jetmoe_kernels::*;

use crate::weights::{Owned, Random, activate, by_definition};

#[derive(Debug, Arbitrary)]
pub(crate) struct Fitting {
    operation: Operation,
    seed: u64,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=4))]
    experts: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=4))]
    per_row: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=40))]
    rows: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=72))]
    outputs: usize,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=160))]
    inputs: usize,
    weight: Kind,
    /// Every row chose this expert and those behind it.
    hot: Option<u8>,
    /// Power of two that the rows are multiplied with; below −126 some numbers lose places.
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(-140..=16))]
    exponent: i32,
    /// Places of a row's elements that are no numbers.
    odd: Vec<(u16, Odd)>,
    several_threads: bool,
}

#[derive(Debug, Arbitrary)]
enum Operation {
    Linear,
    ExpertLinear,
    ExpertLinearSum,
    ExpertMlp {
        #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.choose(Activation::NAMES).map(|(_, named)| *named))]
        activation: Activation,
        down: Kind,
    },
    LookUp,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Kind {
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.choose(&ELEMENTS).copied())]
    element: Element,
    zero_points: bool,
}

const ELEMENTS: [Element; 9] = [
    Element::Int4(GroupSize::G16),
    Element::Int4(GroupSize::G32),
    Element::Int4(GroupSize::G64),
    Element::Int4(GroupSize::G128),
    Element::Int8(GroupSize::G16),
    Element::Int8(GroupSize::G32),
    Element::Int8(GroupSize::G64),
    Element::Int8(GroupSize::G128),
    Element::Bf16,
];

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Odd {
    NotANumber,
    Infinity,
    MinusInfinity,
    Zero,
}

/// More than one thread, without what threads cost: their calls one after the other.
struct InTurn;

impl Threads for InTurn {
    fn count(&self) -> usize {
        2
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        work(0);
        work(1);
    }
}

/// A result, no number where none may come out, and by how much one may differ from it.
#[derive(Debug, Clone, Copy)]
struct Expected {
    value: f64,
    bound: f64,
}

/// Share of a sum's terms, taken without signs, that the order of float32 additions may change.
const ORDER: f64 = 3e-5;
/// What lies below is rounded to zero by rows whose scale is no normal number.
const TINY: f64 = 1e-30;

impl Expected {
    const ZERO: Expected = Expected { value: 0.0, bound: TINY };

    fn add(&mut self, gate: f32, other: Expected) {
        self.value += f64::from(gate) * other.value;
        self.bound += f64::from(gate.abs()) * other.bound;
    }

    fn check(self, found: f32, what: &str) {
        if self.value.is_nan() {
            assert!(!found.is_finite(), "{what}: {found}, where no number may come out");
        } else {
            let difference = (f64::from(found) - self.value).abs();
            assert!(difference <= self.bound, "{what}: {found}, not {self:?}");
        }
    }
}

impl Fitting {
    pub(crate) fn test(&self) {
        let mut random = Random::new(self.seed);
        let experts = match self.operation {
            Operation::Linear | Operation::LookUp => 1,
            _ => self.experts,
        };
        let order = match self.operation {
            Operation::ExpertMlp { .. } => RowOrder::Halves,
            _ => RowOrder::AsStored,
        };
        let outputs = if order == RowOrder::Halves { 2 * self.outputs } else { self.outputs };
        let layout = Layout { experts, outputs, inputs: self.inputs, element: self.weight.element, order };
        let weight = Owned::random(layout, self.weight.zero_points, &mut random);

        let per_row = self.per_row.min(experts);
        let chosen: Vec<i64> = match self.hot {
            Some(hot) => (0..self.rows * per_row)
                .map(|slot| ((usize::from(hot) + slot % per_row) % experts) as i64)
                .collect(),
            None => (0..self.rows).flat_map(|_| random.choice(experts, per_row)).collect(),
        };
        let gates = random.floats(chosen.len());
        let choices = Choices { experts: &chosen, per_row };
        let view = weight.view();
        let slots = chosen.iter().map(|expert| *expert as usize).enumerate();
        match &self.operation {
            Operation::Linear => {
                let x = self.x(self.rows, &mut random);
                let expected =
                    x.chunks_exact(self.inputs).flat_map(|row| products(&weight, 0, row)).collect();
                self.everywhere(expected, |compute, y| linear(compute, &x, &view, y));
            }
            Operation::ExpertLinear => {
                let x = self.x(self.rows, &mut random);
                let row = |slot: usize| &x[slot / per_row * self.inputs..][..self.inputs];
                let expected =
                    slots.flat_map(|(slot, expert)| products(&weight, expert, row(slot))).collect();
                self.everywhere(expected, |compute, y| expert_linear(compute, &x, choices, &view, y));
            }
            Operation::ExpertLinearSum => {
                let x = self.x(chosen.len(), &mut random);
                let mut expected = vec![Expected::ZERO; self.rows * outputs];
                for (slot, expert) in slots {
                    let products = products(&weight, expert, &x[slot * self.inputs..][..self.inputs]);
                    add(&mut expected[slot / per_row * outputs..], gates[slot], products);
                }
                self.everywhere(expected, |compute, y| {
                    expert_linear_sum(compute, &x, choices, &gates, &view, y)
                });
            }
            Operation::ExpertMlp { activation, down } => {
                let layout = Layout {
                    outputs: self.inputs,
                    inputs: self.outputs,
                    element: down.element,
                    order: RowOrder::AsStored,
                    ..layout
                };
                let down = Owned::random(layout, down.zero_points, &mut random);
                let x = self.x(self.rows, &mut random);
                let mut expected = vec![Expected::ZERO; self.rows * self.inputs];
                for (slot, expert) in slots {
                    let row = &x[slot / per_row * self.inputs..][..self.inputs];
                    let products = gated(&weight, &down, *activation, expert, row);
                    add(&mut expected[slot / per_row * self.inputs..], gates[slot], products);
                }
                let mlp = Mlp { gate_and_up: view, down: down.view(), activation: *activation };
                self.everywhere(expected, |compute, y| expert_mlp(compute, &x, choices, &gates, &mlp, y));
            }
            Operation::LookUp => {
                let ids: Vec<i64> = (0..self.rows).map(|_| random.next() as i64 % 8).collect();
                let fits = ids.iter().all(|id| (0..outputs as i64).contains(id));
                let mut y = vec![0.0; self.rows * self.inputs];
                assert_eq!(look_up(&ids, &view, &mut y).is_ok(), fits);
                if fits {
                    for (id, y) in ids.iter().zip(y.chunks_exact(self.inputs)) {
                        assert_eq!(*y, weight.matrix(0)[*id as usize * self.inputs..][..self.inputs]);
                    }
                }
            }
        }
    }

    fn x(&self, rows: usize, random: &mut Random) -> Vec<f32> {
        let scale = 2f64.powi(self.exponent);
        let mut x: Vec<f32> =
            random.floats(rows * self.inputs).into_iter().map(|x| (f64::from(x) * scale) as f32).collect();
        for (place, odd) in &self.odd {
            let place = usize::from(*place) % x.len().max(1);
            if let Some(x) = x.get_mut(place) {
                *x = match odd {
                    Odd::NotANumber => f32::NAN,
                    Odd::Infinity => f32::INFINITY,
                    Odd::MinusInfinity => f32::NEG_INFINITY,
                    Odd::Zero => 0.0,
                };
            }
        }
        x
    }

    /// Holds the plain path to the definition, and the others to the plain path.
    fn everywhere(
        &self,
        mut expected: Vec<Expected>,
        operate: impl Fn(Compute<'_>, &mut [f32]) -> Result<()>,
    ) {
        let threads: &dyn Threads = if self.several_threads { &InTurn } else { &CallingThread };
        for instructions in InstructionSet::available() {
            // what was there before counts for nothing
            let mut y = vec![f32::NAN; expected.len()];
            operate(Compute { instructions, threads }, &mut y).unwrap();
            for (expected, y) in expected.iter_mut().zip(y) {
                expected.check(y, &instructions.to_string());
                if instructions == InstructionSet::PLAIN && y.is_finite() {
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

/// Sizes of the terms that the products of a row are sums of. A number is rounded to at most twice its size.
fn magnitudes(weight: &Owned, expert: usize, row: &[f32]) -> Vec<f64> {
    let matrix = weight.matrix(expert).chunks_exact(weight.layout.inputs);
    let terms = |weights: &[f32]| {
        weights.iter().zip(row).map(|(w, x)| 2.0 * f64::from(w.abs()) * f64::from(x.abs())).sum()
    };
    matrix.map(terms).collect()
}

fn products(weight: &Owned, expert: usize, row: &[f32]) -> Vec<Expected> {
    if !row.iter().all(|x| x.is_finite()) {
        return vec![Expected { value: f64::NAN, bound: 0.0 }; weight.layout.outputs];
    }
    let values = by_definition(weight, expert, row).into_iter();
    let expected = |(value, size)| Expected { value, bound: TINY + ORDER * size };
    values.zip(magnitudes(weight, expert, row)).map(expected).collect()
}

fn gated(up: &Owned, down: &Owned, activation: Activation, expert: usize, row: &[f32]) -> Vec<Expected> {
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
    // a gated value that lies between two of its 255 steps may be rounded either way
    let step = if down.layout.element == Element::Bf16 { 0.0 } else { 0.01 };
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
