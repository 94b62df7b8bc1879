//! Any sizes: mismatched ones are refused, and nothing panics.

use arbitrary::{Arbitrary, Unstructured};
use half::f16;
use jetmoe_format::{PackedLayout, PackedWeight, RowOrder};
use jetmoe_kernels::*;

#[derive(Debug, Arbitrary)]
pub(crate) struct AnyShapes {
    first: Matrices,
    second: Matrices,
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| Ok((0..bytes.int_in_range(0..=12)?).map(|_| expert(bytes)).collect()))]
    experts: Vec<i64>,
    k: Size,
    x: LengthError,
    gates: LengthError,
    y: LengthError,
    operation: Operation,
}

#[derive(Debug, Arbitrary)]
struct Matrices {
    experts: Size,
    outputs: Size,
    inputs: Size,
    bits: Bits,
    halves: bool,
    codes: LengthError,
    scales: Option<LengthError>,
    zero_points: Option<LengthError>,
}

/// Mostly widths that have a kernel.
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

/// The error of a length, mostly none.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct LengthError(
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| if bytes.ratio(1, 4)? { i8::arbitrary(bytes) } else { Ok(0) })]
     i8,
);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Operation {
    Linear,
    ExpertLinear,
    ExpertLinearSum,
    ExpertMlp,
    GatherRows,
}

/// Mostly an expert that a weight has.
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

impl LengthError {
    fn of(self, length: usize) -> usize {
        length.saturating_add_signed(self.0.into())
    }
}

/// Elements of the largest tensor that is allocated.
const MAX_ELEMENTS: usize = 1 << 18;

/// The tensors of a weight.
struct Tensors {
    layout: PackedLayout,
    codes: Vec<u8>,
    scales: Option<Vec<f16>>,
    zero_points: Option<Vec<u8>>,
}

impl Matrices {
    /// Tensors about as long as the layout says; `None` for an unsupported scheme.
    fn tensors(&self) -> Option<Tensors> {
        let group = |of| match of {
            GroupOf::Sixteen => 16,
            GroupOf::ThirtyTwo => 32,
            GroupOf::Many => 128,
        };
        let (bits, group_size) = match self.bits {
            Bits::Four(of) => (4, group(of)),
            Bits::Eight(of) => (8, group(of)),
            Bits::Sixteen => (16, 0),
            Bits::Any(bits, group_size) => (bits, group_size),
        };
        let scheme = PackedLayout::scheme(bits, group_size, self.zero_points.is_some());
        let order = if self.halves { RowOrder::Halves } else { RowOrder::AsStored };
        let (experts, outputs, inputs) = (self.experts.get(), self.outputs.get(), self.inputs.get());
        let layout = PackedLayout { experts, outputs, inputs, scheme: scheme.ok()?, order };
        // Only small tensors are allocated; in floats, because the products may overflow.
        let count = |sizes: [usize; 4]| sizes.iter().map(|size| *size as f64).product::<f64>();
        let small = [experts, outputs, inputs].iter().all(|size| *size <= MAX_ELEMENTS)
            && count(layout.codes_shape()).max(count(layout.scales_shape())) <= MAX_ELEMENTS as f64;
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
    fn weight(&self) -> Option<PackedWeight<'_>> {
        let PackedLayout { experts, outputs, inputs, .. } = self.layout;
        let weight =
            PackedWeight::new(self.layout, &self.codes, self.scales.as_deref(), self.zero_points.as_deref());
        let empty = experts == 0 || outputs == 0 || inputs == 0;
        let elements = [experts, outputs, inputs].iter().map(|size| *size as f64).product::<f64>();
        // A 4-bit code is the smallest element.
        let enough = self.codes.len() as f64 * 2.0 >= elements;
        let scales = self.layout.group_size().is_some()
            == self.scales.as_ref().is_some_and(|scales| !scales.is_empty());
        assert!(weight.is_err() || !empty && enough && scales, "{:?} was accepted", self.layout);
        weight.ok()
    }
}

impl AnyShapes {
    pub(crate) fn test(&self) {
        let (Some(first), Some(second)) = (self.first.tensors(), self.second.tensors()) else { return };
        let (Some(weight), Some(down)) = (first.weight(), second.weight()) else { return };
        let PackedLayout { experts, outputs, inputs, order, .. } = first.layout;
        let (chosen, k) = (self.experts.as_slice(), self.k.get());
        let assignments = chosen.len();
        let rows = assignments / k.max(1);
        let (x_rows, x_columns, y_rows, y_columns) = match self.operation {
            Operation::Linear => (assignments, inputs, assignments, outputs),
            Operation::ExpertLinear => (rows, inputs, assignments, outputs),
            Operation::ExpertLinearSum => (assignments, inputs, rows, outputs),
            Operation::ExpertMlp => (rows, inputs, rows, second.layout.outputs),
            Operation::GatherRows => (0, 0, assignments, inputs),
        };
        let x = vec![0.5; self.x.of(x_rows * x_columns)];
        let gates = vec![1.0; self.gates.of(assignments)];
        let mut y = vec![0.0; self.y.of(y_rows * y_columns)];
        let fits = y.len() == y_rows * y_columns
            && match self.operation {
                Operation::GatherRows => chosen.iter().all(|id| (0..outputs as i64).contains(id)),
                Operation::Linear => experts == 1 && x.len() == x_rows * x_columns,
                _ => {
                    rows * k == assignments
                        && x.len() == x_rows * x_columns
                        && chosen.iter().all(|expert| (0..experts as i64).contains(expert))
                }
            }
            && (gates.len() == assignments
                || !matches!(self.operation, Operation::ExpertLinearSum | Operation::ExpertMlp))
            && if self.operation == Operation::ExpertMlp {
                order == RowOrder::Halves
                    && second.layout.order == RowOrder::AsStored
                    && second.layout.inputs == outputs / 2
                    && second.layout.experts == experts
            } else {
                // Only an MLP takes interleaved halves.
                order == RowOrder::AsStored
            };
        for isa in Isa::available() {
            let context = ExecContext { isa, threads: &CallingThread };
            let top_k = TopK { experts: chosen, k };
            let result = match self.operation {
                Operation::Linear => linear(context, &x, &weight, &mut y),
                Operation::ExpertLinear => expert_linear(context, &x, top_k, &weight, &mut y),
                Operation::ExpertLinearSum => expert_linear_sum(context, &x, top_k, &gates, &weight, &mut y),
                Operation::ExpertMlp => {
                    let mlp = Mlp { gate_and_up: weight, down, activation: Activation::Silu };
                    expert_mlp(context, &x, top_k, &gates, &mlp, &mut y)
                }
                Operation::GatherRows => gather_rows(chosen, &weight, &mut y),
            };
            assert_eq!(result.is_ok(), fits, "{result:?}");
        }
    }
}
