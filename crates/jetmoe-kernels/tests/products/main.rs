//! Every instruction set that this processor supports computes what the definition says, for any sizes.

mod weights;

use half::f16;
use jetmoe_format::{PackedLayout, PackedWeight, RowOrder};
use jetmoe_kernels::*;
use proptest::prelude::*;

use self::weights::{
    OwnedWeight, Random, by_definition, errors_once_quantized, magnitudes, without_quantization,
};

const ELEMENTS: [(i64, i64); 9] =
    [(4, 16), (4, 32), (4, 64), (4, 128), (8, 16), (8, 32), (8, 64), (8, 128), (16, 0)];

/// The first of them, whose weights have codes.
const QUANTIZED: usize = 8;

/// How much a sum in float32 may differ, relative to the sum of the magnitudes.
const ROUNDED_SUM: f64 = 2e-6;

/// Runs a test with each instruction set that this processor supports, on one thread and on several.
fn for_every_isa(mut test: impl FnMut(ExecContext<'_>)) {
    for isa in Isa::available() {
        for threads in [&CallingThread as &dyn Threads, &ScopedThreads(3)] {
            test(ExecContext { isa, threads });
        }
    }
}

/// Whether the activations of an expert with this number of rows are bfloat16, as matrix instructions take them.
fn has_bfloat16(isa: Isa, rows: usize) -> bool {
    matches!(isa, Isa::Amx { .. }) && rows >= 16
}

/// No errors in rows of this length.
fn exact(inputs: usize) -> impl Fn(usize) -> Vec<f64> {
    move |_| vec![0.0; inputs]
}

/// Expected products of every assignment with its expert, and how much each may differ from them, where the
/// elements of its row may differ by `errors`.
fn expected_products(
    isa: Isa,
    weight: &OwnedWeight,
    chosen: &[i64],
    row: impl Fn(usize) -> Vec<f32>,
    errors: impl Fn(usize) -> Vec<f64>,
) -> (Vec<f64>, Vec<f64>) {
    let (mut expected, mut bounds) = (Vec::new(), Vec::new());
    for (assignment, expert) in chosen.iter().enumerate() {
        let (row, errors) = (row(assignment), errors(assignment));
        let rows = chosen.iter().filter(|other| *other == expert).count();
        let expert = *expert as usize;
        let sums = magnitudes(weight, expert, &row);
        let errors = if weight.layout.group_size().is_none() {
            expected.extend(by_definition(weight, expert, &row));
            magnitudes(weight, expert, &errors)
        } else if has_bfloat16(isa, rows) {
            // Both operands of a product are rounded, by at most 2⁻⁸ of their magnitude.
            expected.extend(without_quantization(weight, expert, &row));
            let errors = magnitudes(weight, expert, &errors);
            sums.iter().zip(errors).map(|(sum, error)| 1.01 * (sum / 128.0 + error)).collect()
        } else {
            expected.extend(by_definition(weight, expert, &row));
            magnitudes(weight, expert, &errors_once_quantized(&row, &errors))
        };
        bounds.extend(errors.iter().zip(sums).map(|(error, sum)| error + ROUNDED_SUM * sum));
    }
    (expected, bounds)
}

fn assert_within(isa: Isa, found: &[f32], expected: &[f64], bounds: &[f64]) {
    for ((found, expected), bound) in found.iter().zip(expected).zip(bounds) {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= *bound, "{isa}: {found} instead of {expected}, which may differ by {bound}");
    }
}

/// The largest difference, relative to the largest expected value.
fn max_difference(found: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(1e-30, |largest: f64, value| largest.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / largest).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_are_multiplied_with_the_matrices_of_their_experts(
        seed in any::<u64>(),
        element in 0..ELEMENTS.len(),
        zero_points in any::<bool>(),
        (experts, k) in (1_usize..5).prop_flat_map(|experts| (Just(experts), 1..=experts)),
        outputs in 1_usize..80,
        inputs in 1_usize..200,
        rows in 0_usize..70,
    ) {
        let mut random = Random::new(seed);
        let (bits, group_size) = ELEMENTS[element];
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts, outputs, inputs, scheme, order: RowOrder::AsStored };
        let weight = OwnedWeight::random(layout, zero_points, &mut random);
        let x = random.floats(rows * inputs);
        let chosen: Vec<i64> = (0..rows).flat_map(|_| random.experts(experts, k)).collect();
        let top_k = TopK { experts: &chosen, k };
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * k * outputs];
            expert_linear(context, &x, top_k, &weight.view(), &mut y).unwrap();
            let row = |assignment: usize| x[assignment / k * inputs..][..inputs].to_vec();
            let (expected, bounds) = expected_products(context.isa, &weight, &chosen, row, exact(inputs));
            assert_within(context.isa, &y, &expected, &bounds);
        });

        let x = random.floats(rows * k * inputs);
        let gates = random.floats(rows * k);
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * outputs];
            expert_linear_sum(context, &x, top_k, &gates, &weight.view(), &mut y).unwrap();
            let row = |assignment: usize| x[assignment * inputs..][..inputs].to_vec();
            let (products, bounds_of_products) = expected_products(context.isa, &weight, &chosen, row, exact(inputs));
            let (mut expected, mut bounds) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
            for (index, (product, bound)) in products.iter().zip(bounds_of_products).enumerate() {
                let (assignment, output) = (index / outputs, index % outputs);
                let gate = f64::from(gates[assignment]);
                expected[assignment / k * outputs + output] += product * gate;
                bounds[assignment / k * outputs + output] += bound * gate.abs().max(1.0);
            }
            assert_within(context.isa, &y, &expected, &bounds);
        });
    }

    #[test]
    fn products_in_float32_are_those_of_the_dequantized_weight(
        seed in any::<u64>(),
        element in 0..QUANTIZED,
        zero_points in any::<bool>(),
        outputs in 1_usize..300,
        inputs in 1_usize..300,
        rows in 0_usize..20,
    ) {
        let mut random = Random::new(seed);
        let (bits, group_size) = ELEMENTS[element];
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts: 1, outputs, inputs, scheme, order: RowOrder::AsStored };
        let weight = OwnedWeight::random(layout, zero_points, &mut random);
        let x = random.floats(rows * inputs);
        let expected: Vec<f64> =
            x.chunks_exact(inputs).flat_map(|row| without_quantization(&weight, 0, row)).collect();
        let sums = x.chunks_exact(inputs).flat_map(|row| magnitudes(&weight, 0, row));
        let bounds: Vec<f64> = sums.map(|sum| ROUNDED_SUM * sum).collect();
        let scales = weight.float32_scales();
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * outputs];
            linear_float32(context, &x, &weight.view_with(&scales), &mut y).unwrap();
            assert_within(context.isa, &y, &expected, &bounds);
        });
    }

    #[test]
    fn an_mlp_is_its_formula(
        seed in any::<u64>(),
        element in 0..ELEMENTS.len(),
        experts in 1_usize..4,
        hidden in 1_usize..70,
        intermediate in 1_usize..90,
        rows in 0_usize..20,
        activation in 0..Activation::ALL.len(),
    ) {
        let mut random = Random::new(seed);
        let (bits, group_size) = ELEMENTS[element];
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let activation = Activation::ALL[activation];
        let up = PackedLayout { experts, outputs: 2 * intermediate, inputs: hidden, scheme, order: RowOrder::Halves };
        let down = PackedLayout { experts, outputs: hidden, inputs: intermediate, scheme, order: RowOrder::AsStored };
        let (up, down) = (OwnedWeight::random(up, false, &mut random), OwnedWeight::random(down, true, &mut random));
        let x = random.floats(rows * hidden);
        let chosen: Vec<i64> = (0..rows).flat_map(|_| random.experts(experts, 1)).collect();
        let gates = random.floats(rows);
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * hidden];
            let mlp = Mlp { gate_and_up: up.view(), down: down.view(), activation };
            let top_k = TopK { experts: &chosen, k: 1 };
            expert_mlp(context, &x, top_k, &gates, &mlp, &mut y).unwrap();
            let row = |row: usize| x[row * hidden..][..hidden].to_vec();
            let (products, bounds) = expected_products(context.isa, &up, &chosen, row, exact(hidden));
            let gate_and_up = |values: &[f64], row: usize| {
                let (gate, up) = values[row * 2 * intermediate..][..2 * intermediate].split_at(intermediate);
                gate.iter().copied().zip(up.iter().copied()).collect::<Vec<_>>()
            };
            let gated = |row: usize| {
                let values = gate_and_up(&products, row).into_iter();
                values.map(|(gate, up)| (weights::activate(activation, gate) * up) as f32).collect()
            };
            let errors = |row: usize| {
                let values = gate_and_up(&products, row).into_iter().zip(gate_and_up(&bounds, row));
                let error = |((gate, up), (gate_error, up_error)): ((f64, f64), (f64, f64))| {
                    let activated = weights::activate(activation, gate).abs();
                    // No activation is steeper than 1.13; their approximations differ by 1e-6.
                    let activated_error = 1.13 * gate_error + 1e-6 * (1.0 + activated);
                    activated_error * up.abs() + (activated + activated_error) * up_error
                };
                values.map(error).collect()
            };
            let (mut expected, mut bounds) = expected_products(context.isa, &down, &chosen, gated, errors);
            for (row, gate) in gates.iter().enumerate() {
                let gate = f64::from(*gate);
                expected[row * hidden..][..hidden].iter_mut().for_each(|product| *product *= gate);
                bounds[row * hidden..][..hidden].iter_mut().for_each(|bound| *bound *= gate.abs());
            }
            assert_within(context.isa, &y, &expected, &bounds);
        });
    }
}

#[test]
fn instruction_sets_differ_by_the_order_of_additions_only() {
    // emulated.sh reads this line.
    println!("ISAS {}", Isa::available().iter().map(|isa| isa.to_string()).collect::<Vec<_>>().join(" "));
    let mut random = Random::new(7);
    for (bits, group_size) in ELEMENTS {
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts: 3, outputs: 96, inputs: 320, scheme, order: RowOrder::AsStored };
        let weight = OwnedWeight::random(layout, true, &mut random);
        for rows in [1, 2, 3, 4, 5, 16, 17, 130] {
            let x = random.floats(rows * 320);
            let chosen: Vec<i64> = (0..rows).flat_map(|_| random.experts(3, 1)).collect();
            let top_k = TopK { experts: &chosen, k: 1 };
            let mut generic = vec![0.0; rows * 96];
            let context = ExecContext { isa: Isa::Generic, threads: &CallingThread };
            expert_linear(context, &x, top_k, &weight.view(), &mut generic).unwrap();
            let generic: Vec<f64> = generic.into_iter().map(f64::from).collect();
            for_every_isa(|context| {
                if has_bfloat16(context.isa, rows) {
                    return;
                }
                let mut y = vec![0.0; rows * 96];
                expert_linear(context, &x, top_k, &weight.view(), &mut y).unwrap();
                let difference = max_difference(&y, &generic);
                assert!(difference < 2e-6, "{bits}/{group_size} {}: {difference}", context.isa);
            });
        }
    }
}

/// So that an answer does not depend on what is computed beside it. `linear_float32` adds the products of one row in another order.
#[test]
fn a_row_has_the_same_bits_alone_and_beside_others() {
    let mut random = Random::new(11);
    let (inputs, outputs, rows) = (96, 64, 66);
    for (bits, group_size) in ELEMENTS {
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts: 1, outputs, inputs, scheme, order: RowOrder::AsStored };
        for zero_points in [false, true] {
            let weight = OwnedWeight::random(layout, zero_points, &mut random);
            let x = random.floats(rows * inputs);
            for_every_isa(|context| {
                let products = |x: &[f32]| {
                    let mut y = vec![0.0; x.len() / inputs * outputs];
                    linear(context, x, &weight.view(), &mut y).unwrap();
                    y
                };
                let alone: Vec<f32> = x.chunks_exact(inputs).flat_map(products).collect();
                for count in [2, 3, 4, 5, 8, 9, 15, 16, 17, 23, 64, 65, 66] {
                    if bits != 16 && has_bfloat16(context.isa, count) {
                        continue;
                    }
                    let found = products(&x[..count * inputs]);
                    assert_eq!(
                        found,
                        alone[..count * outputs],
                        "{bits}/{group_size} {}: {count}",
                        context.isa
                    );
                }
            });
        }
    }
}

#[test]
fn one_expert_with_all_rows_and_the_others_with_none() {
    let mut random = Random::new(3);
    let scheme = PackedLayout::scheme(4, 32, false).unwrap();
    let layout = PackedLayout { experts: 8, outputs: 64, inputs: 64, scheme, order: RowOrder::AsStored };
    let weight = OwnedWeight::random(layout, false, &mut random);
    let x = random.floats(200 * 64);
    let chosen = vec![5; 200];
    for_every_isa(|context| {
        let mut y = vec![0.0; 200 * 64];
        let top_k = TopK { experts: &chosen, k: 1 };
        expert_linear(context, &x, top_k, &weight.view(), &mut y).unwrap();
        let row = |row: usize| x[row * 64..][..64].to_vec();
        let (expected, bounds) = expected_products(context.isa, &weight, &chosen, row, exact(64));
        assert_within(context.isa, &y, &expected, &bounds);
    });
}

/// More rows than a tile has, more panels than are multiplied at once, and more columns than are multiplied in a row.
#[test]
fn many_rows_panels_and_columns_are_multiplied_in_parts() {
    let mut random = Random::new(13);
    let (rows, outputs, inputs) = (300, 330, 2200);
    for (bits, group_size, zero_points) in [(4, 32, false), (4, 16, true), (8, 64, true), (16, 0, false)] {
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts: 2, outputs, inputs, scheme, order: RowOrder::AsStored };
        let weight = OwnedWeight::random(layout, zero_points, &mut random);
        let x = random.floats(rows * inputs);
        // an expert with few rows beside one with many
        let chosen: Vec<i64> = (0..rows).map(|row| i64::from(row % 60 == 7)).collect();
        let some = [0, 7, 31, 33, 159, 160, 161, 193, 298, 299];
        let of_some: Vec<i64> = some.iter().map(|row| chosen[*row]).collect();
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * outputs];
            let top_k = TopK { experts: &chosen, k: 1 };
            expert_linear(context, &x, top_k, &weight.view(), &mut y).unwrap();
            let y: Vec<f32> = some.iter().flat_map(|row| &y[row * outputs..][..outputs]).copied().collect();
            // as many rows of each expert as decide about its form
            let all: Vec<i64> = of_some.iter().copied().chain(std::iter::repeat_n(0, 16)).collect();
            let row = |place: usize| {
                some.get(place).map_or(vec![0.0; inputs], |row| x[row * inputs..][..inputs].to_vec())
            };
            let (expected, bounds) = expected_products(context.isa, &weight, &all, row, exact(inputs));
            assert_within(context.isa, &y, &expected[..y.len()], &bounds[..y.len()]);
        });
    }
}

/// Products use the memory of those before again.
#[test]
fn what_a_product_leaves_does_not_reach_the_next() {
    let mut random = Random::new(17);
    let scheme = PackedLayout::scheme(4, 32, false).unwrap();
    let up = PackedLayout { experts: 2, outputs: 96, inputs: 50, scheme, order: RowOrder::Halves };
    let down = PackedLayout { experts: 2, outputs: 50, inputs: 48, scheme, order: RowOrder::AsStored };
    let (up, down) =
        (OwnedWeight::random(up, false, &mut random), OwnedWeight::random(down, true, &mut random));
    let x = random.floats(70 * 50);
    for_every_isa(|context| {
        let mlp = Mlp { gate_and_up: up.view(), down: down.view(), activation: Activation::Silu };
        let product = |x: &[f32]| {
            let rows = x.len() / 50;
            let (chosen, gates) = (vec![1; rows], vec![0.5; rows]);
            let mut y = vec![0.0; rows * 50];
            let top_k = TopK { experts: &chosen, k: 1 };
            expert_mlp(context, x, top_k, &gates, &mlp, &mut y).unwrap();
            y
        };
        for rows in [1, 3, 20, 70] {
            let before = product(&x[..rows * 50]);
            assert!(before.iter().all(|y| y.is_finite()));
            assert!(product(&[f32::NAN; 70 * 50]).iter().all(|y| y.is_nan()));
            assert_eq!(product(&x[..rows * 50]), before, "{} rows, {}", rows, context.isa);
        }
    });
}

#[test]
fn infinity_and_nan_stay_in_their_row() {
    let mut random = Random::new(9);
    for (bits, group_size) in ELEMENTS {
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts: 1, outputs: 40, inputs: 100, scheme, order: RowOrder::AsStored };
        let weight = OwnedWeight::random(layout, true, &mut random);
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // so many that matrix instructions are used
            let mut x = random.floats(20 * 100);
            x[7 * 100 + 70] = special;
            for_every_isa(|context| {
                let mut y = vec![0.0; 20 * 40];
                linear(context, &x, &weight.view(), &mut y).unwrap();
                for (row, y) in y.chunks_exact(40).enumerate() {
                    let expected = |y: &f32| y.is_finite() == (row != 7);
                    assert!(y.iter().all(expected), "{}, row {row}: {y:?}", context.isa);
                }
            });
        }
    }
}

#[test]
fn gathered_rows_are_the_weights_that_are_multiplied() {
    let mut random = Random::new(5);
    for (bits, group_size) in ELEMENTS {
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        let layout = PackedLayout { experts: 1, outputs: 70, inputs: 50, scheme, order: RowOrder::AsStored };
        let weight = OwnedWeight::random(layout, true, &mut random);
        let mut rows = vec![0.0; 3 * 50];
        gather_rows(&[69, 0, 33], &weight.view(), &mut rows).unwrap();
        let matrix = weight.matrix(0);
        assert_eq!(rows, [&matrix[69 * 50..], &matrix[..50], &matrix[33 * 50..34 * 50]].concat());
        let error = gather_rows(&[70], &weight.view(), &mut rows[..50]).unwrap_err();
        assert_eq!(error.to_string(), "row 70 is out of range; the table has 70");
    }
}

#[test]
fn mismatched_sizes_are_refused() {
    let mut random = Random::new(1);
    let scheme = PackedLayout::scheme(4, 32, false).unwrap();
    let layout = PackedLayout { experts: 2, outputs: 32, inputs: 32, scheme, order: RowOrder::AsStored };
    let weight = OwnedWeight::random(layout, false, &mut random);
    let context = ExecContext { isa: Isa::Generic, threads: &CallingThread };
    let mut y = vec![0.0; 32];
    let choose = |experts| TopK { experts, k: 1 };
    let x = [0.0; 32];
    let cases = [
        (
            expert_linear(context, &x, choose(&[2]), &weight.view(), &mut y),
            "row 0 chose expert 2; there are 2",
        ),
        (
            expert_linear(context, &x, choose(&[-1]), &weight.view(), &mut y),
            "row 0 chose expert -1; there are 2",
        ),
        (
            expert_linear(context, &x[1..], choose(&[0]), &weight.view(), &mut y),
            "x has 31 elements and should have 32",
        ),
        (linear(context, &x, &weight.view(), &mut y), "the matrices of a weight for all rows has 2 elements"),
    ];
    for (result, expected) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let floats = PackedLayout { experts: 1, scheme: PackedLayout::scheme(16, 0, false).unwrap(), ..layout };
    let floats = OwnedWeight::random(floats, false, &mut random);
    let error = linear_float32(context, &x, &floats.view_with(&[]), &mut y).unwrap_err();
    assert_eq!(error.to_string(), "a weight without codes is multiplied in float32 by `linear`");
    let short = PackedWeight::<f16>::new(layout, &[0; 5], Some(&[]), None).unwrap_err();
    assert_eq!(short.to_string(), "the weight has 5 elements and should have 1024");
    // Padded to whole blocks, these sizes would wrap around to small ones.
    for (experts, outputs) in [(1 << 60, 32), (1, 1 << 62), (1 << 32, 1 << 32)] {
        let error =
            PackedWeight::<f16>::new(PackedLayout { experts, outputs, ..layout }, &[], Some(&[]), None)
                .unwrap_err();
        assert!(error.to_string().ends_with("does not fit in memory"), "{error}");
    }
    let halves = OwnedWeight::random(PackedLayout { order: RowOrder::Halves, ..layout }, false, &mut random);
    let error = expert_linear(context, &x, choose(&[0]), &halves.view(), &mut y).unwrap_err();
    assert_eq!(error.to_string(), "a weight whose halves are interleaved can only be the first of an MLP");
    assert!(PackedLayout::scheme(3, 32, false).is_err() && PackedLayout::scheme(4, 20, false).is_err());
    assert!(Isa::from_name("sse").unwrap_err().to_string().contains("generic"));
}
