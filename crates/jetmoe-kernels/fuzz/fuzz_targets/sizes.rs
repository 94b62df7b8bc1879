//! Any sizes at all: those that do not fit together are refused, and nothing panics.

use arbitrary::{Arbitrary, Unstructured};
use half::f16;
use jetmoe_kernels::*;

#[derive(Debug, Arbitrary)]
pub(crate) struct Sizes {
    first: Matrices,
    second: Matrices,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| Ok((0..bytes.int_in_range(0..=12)?).map(|_| expert(bytes)).collect()))]
    experts: Vec<i64>,
    per_row: Size,
    x: Off,
    gates: Off,
    y: Off,
    operation: Operation,
}

#[derive(Debug, Arbitrary)]
struct Matrices {
    experts: Size,
    outputs: Size,
    inputs: Size,
    bits: Bits,
    halves: bool,
    codes: Off,
    scales: Option<Off>,
    zero_points: Option<Off>,
}

/// Mostly what has a kernel.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Bits {
    Four(GroupOf),
    Eight(GroupOf),
    Sixteen,
    Any(i64, i64),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum GroupOf {
    Sixteen,
    ThirtyTwo,
    Many,
}

/// Mostly small.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Size {
    Small(#[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=70))] usize),
    Few(#[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(1..=3))] usize),
    PowerOfTwo(#[arbitrary(with = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=63))] u32),
    Any(usize),
}

/// By how much a length is wrong, mostly by nothing.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Off {
    No,
    Not,
    Neither,
    By(i8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Operation {
    Linear,
    ExpertLinear,
    ExpertLinearSum,
    ExpertMlp,
    LookUp,
}

/// Mostly one that a weight has.
fn expert(bytes: &mut Unstructured<'_>) -> i64 {
    match bytes.int_in_range(0..=15) {
        Ok(0) => i64::arbitrary(bytes).unwrap_or(0),
        Ok(number) => number % 2,
        Err(_) => 0,
    }
}

impl Size {
    fn get(self) -> usize {
        match self {
            Size::Small(size) | Size::Few(size) | Size::Any(size) => size,
            Size::PowerOfTwo(bits) => 1 << bits,
        }
    }
}

impl Off {
    fn of(self, length: usize) -> usize {
        match self {
            Off::By(by) => length.saturating_add_signed(by.into()),
            Off::No | Off::Not | Off::Neither => length,
        }
    }
}

/// Elements of the largest tensor that is made.
const MOST: usize = 1 << 18;

/// The tensors of a weight.
struct Tensors {
    layout: Layout,
    codes: Vec<u8>,
    scales: Option<Vec<f16>>,
    zero_points: Option<Vec<u8>>,
}

impl Matrices {
    /// Tensors about as long as the layout says; of no layout where there is no such element.
    fn tensors(&self) -> Option<Tensors> {
        let group = |of| match of {
            GroupOf::Sixteen => 16,
            GroupOf::ThirtyTwo => 32,
            GroupOf::Many => 128,
        };
        let element = match self.bits {
            Bits::Four(of) => Element::new(4, group(of)),
            Bits::Eight(of) => Element::new(8, group(of)),
            Bits::Sixteen => Element::new(16, 0),
            Bits::Any(bits, group_size) => Element::new(bits, group_size),
        };
        let order = if self.halves { RowOrder::Halves } else { RowOrder::AsStored };
        let (experts, outputs, inputs) = (self.experts.get(), self.outputs.get(), self.inputs.get());
        let layout = Layout { experts, outputs, inputs, element: element.ok()?, order };
        // sizes of tensors that can be made, in numbers that have no end
        let count = |sizes: [usize; 4]| sizes.iter().map(|size| *size as f64).product::<f64>();
        let small = [experts, outputs, inputs].iter().all(|size| *size <= MOST)
            && count(layout.codes_shape()).max(count(layout.scales_shape())) <= MOST as f64;
        let (codes, groups) = if small {
            (layout.codes_shape().iter().product(), layout.scales_shape().iter().product())
        } else {
            (0, 0)
        };
        Some(Tensors {
            layout,
            codes: vec![0x57; self.codes.of(codes)],
            scales: self.scales.map(|off| vec![f16::ONE; off.of(groups)]),
            zero_points: self.zero_points.map(|off| vec![3; off.of(groups)]),
        })
    }
}

impl Tensors {
    fn weight(&self) -> Option<Weight<'_>> {
        let Layout { experts, outputs, inputs, element, .. } = self.layout;
        let weight =
            Weight::new(self.layout, &self.codes, self.scales.as_deref(), self.zero_points.as_deref());
        let empty = experts == 0 || outputs == 0 || inputs == 0;
        let elements = [experts, outputs, inputs].iter().map(|size| *size as f64).product::<f64>();
        // a code of 4 bits is the smallest element
        let enough = self.codes.len() as f64 * 2.0 >= elements;
        let scales = element.group_size().is_some() == self.scales.is_some();
        assert!(weight.is_err() || !empty && enough && scales, "{:?} was taken", self.layout);
        weight.ok()
    }
}

impl Sizes {
    pub(crate) fn test(&self) {
        let (Some(first), Some(second)) = (self.first.tensors(), self.second.tensors()) else { return };
        let (Some(weight), Some(down)) = (first.weight(), second.weight()) else { return };
        let Layout { experts, outputs, inputs, order, .. } = first.layout;
        let (experts_of_rows, per_row) = (self.experts.as_slice(), self.per_row.get());
        let slots = experts_of_rows.len();
        let rows = slots / per_row.max(1);
        let (x_rows, x_columns, y_rows, y_columns) = match self.operation {
            Operation::Linear => (slots, inputs, slots, outputs),
            Operation::ExpertLinear => (rows, inputs, slots, outputs),
            Operation::ExpertLinearSum => (slots, inputs, rows, outputs),
            Operation::ExpertMlp => (rows, inputs, rows, second.layout.outputs),
            Operation::LookUp => (0, 0, slots, inputs),
        };
        let x = vec![0.5; self.x.of(x_rows * x_columns)];
        let gates = vec![1.0; self.gates.of(slots)];
        let mut y = vec![0.0; self.y.of(y_rows * y_columns)];
        let fits = y.len() == y_rows * y_columns
            && match self.operation {
                Operation::LookUp => experts_of_rows.iter().all(|id| (0..outputs as i64).contains(id)),
                Operation::Linear => experts == 1 && x.len() == x_rows * x_columns,
                _ => {
                    rows * per_row == slots
                        && x.len() == x_rows * x_columns
                        && experts_of_rows.iter().all(|expert| (0..experts as i64).contains(expert))
                }
            }
            && (gates.len() == slots
                || !matches!(self.operation, Operation::ExpertLinearSum | Operation::ExpertMlp))
            && if self.operation == Operation::ExpertMlp {
                order == RowOrder::Halves
                    && second.layout.order == RowOrder::AsStored
                    && second.layout.inputs == outputs / 2
                    && second.layout.experts == experts
            } else {
                // rows whose halves are interleaved are an MLP's alone
                order == RowOrder::AsStored
            };
        for instructions in InstructionSet::available() {
            let compute = Compute { instructions, threads: &CallingThread };
            let choices = Choices { experts: experts_of_rows, per_row };
            let result = match self.operation {
                Operation::Linear => linear(compute, &x, &weight, &mut y),
                Operation::ExpertLinear => expert_linear(compute, &x, choices, &weight, &mut y),
                Operation::ExpertLinearSum => {
                    expert_linear_sum(compute, &x, choices, &gates, &weight, &mut y)
                }
                Operation::ExpertMlp => {
                    let mlp = Mlp { gate_and_up: weight, down, activation: Activation::Silu };
                    expert_mlp(compute, &x, choices, &gates, &mlp, &mut y)
                }
                Operation::LookUp => look_up(experts_of_rows, &weight, &mut y),
            };
            assert_eq!(result.is_ok(), fits, "{result:?}");
        }
    }
}
