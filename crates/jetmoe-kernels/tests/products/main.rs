//! Every instruction set that this processor supports computes what the definition says, for any sizes.

mod weights;

use half::f16;
use jetmoe_format::{PackedLayout, PackedWeight, RowOrder};
use jetmoe_kernels::*;
use proptest::prelude::*;

use self::weights::{OwnedWeight, Random, by_definition, without_quantization};

const ELEMENTS: [(i64, i64); 9] =
    [(4, 16), (4, 32), (4, 64), (4, 128), (8, 16), (8, 32), (8, 64), (8, 128), (16, 0)];

/// The first of them, whose weights have codes.
const QUANTIZED: usize = 8;

/// Runs a test with each instruction set that this processor supports, on one thread and on several.
fn for_every_isa(mut test: impl FnMut(ExecContext<'_>)) {
    for isa in Isa::available() {
        for threads in [&CallingThread as &dyn Threads, &ScopedThreads(3)] {
            test(ExecContext { isa, threads });
        }
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
        let expected: Vec<f64> = chosen.iter().enumerate().flat_map(|(assignment, expert)| {
            let row = assignment / k;
            by_definition(&weight, *expert as usize, &x[row * inputs..][..inputs])
        }).collect();
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * k * outputs];
            expert_linear(context, &x, top_k, &weight.view(), &mut y).unwrap();
            let difference = max_difference(&y, &expected);
            assert!(difference < 1e-5, "{}: {difference}", context.isa);
        });

        let x = random.floats(rows * k * inputs);
        let gates = random.floats(rows * k);
        let mut expected = vec![0.0; rows * outputs];
        for (assignment, expert) in chosen.iter().enumerate() {
            let products = by_definition(&weight, *expert as usize, &x[assignment * inputs..][..inputs]);
            for (sum, product) in expected[assignment / k * outputs..].iter_mut().zip(products) {
                *sum += product * f64::from(gates[assignment]);
            }
        }
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * outputs];
            expert_linear_sum(context, &x, top_k, &gates, &weight.view(), &mut y).unwrap();
            let difference = max_difference(&y, &expected);
            assert!(difference < 1e-5, "{}: {difference}", context.isa);
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
            x.chunks_exact(inputs).flat_map(|row| without_quantization(&weight, row)).collect();
        let scales = weight.float32_scales();
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * outputs];
            linear_float32(context, &x, &weight.view_with(&scales), &mut y).unwrap();
            let difference = max_difference(&y, &expected);
            assert!(difference < 1e-5, "{}: {difference}", context.isa);
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
        let mut expected = Vec::new();
        for (row, expert) in chosen.iter().enumerate() {
            let products = by_definition(&up, *expert as usize, &x[row * hidden..][..hidden]);
            let (gate, up) = products.split_at(intermediate);
            let gated: Vec<f32> =
                gate.iter().zip(up).map(|(gate, up)| (weights::activate(activation, *gate) * up) as f32).collect();
            let products = by_definition(&down, *expert as usize, &gated);
            expected.extend(products.iter().map(|product| product * f64::from(gates[row])));
        }
        for_every_isa(|context| {
            let mut y = vec![f32::NAN; rows * hidden];
            let mlp = Mlp { gate_and_up: up.view(), down: down.view(), activation };
            let top_k = TopK { experts: &chosen, k: 1 };
            expert_mlp(context, &x, top_k, &gates, &mlp, &mut y).unwrap();
            // A gated value between two of its 255 steps may be rounded either way.
            let difference = max_difference(&y, &expected);
            assert!(difference < 2e-2, "{}: {difference}", context.isa);
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
    let (inputs, outputs, rows) = (224, 96, 130);
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
                for count in [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 63, 64, 65, 66, 130] {
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
    let expected: Vec<f64> = x.chunks_exact(64).flat_map(|row| by_definition(&weight, 5, row)).collect();
    for_every_isa(|context| {
        let mut y = vec![0.0; 200 * 64];
        let top_k = TopK { experts: &chosen, k: 1 };
        expert_linear(context, &x, top_k, &weight.view(), &mut y).unwrap();
        assert!(max_difference(&y, &expected) < 1e-5);
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
            let mut x = random.floats(3 * 100);
            x[100 + 70] = special;
            for_every_isa(|context| {
                let mut y = vec![0.0; 3 * 40];
                linear(context, &x, &weight.view(), &mut y).unwrap();
                let (finite, special) = ([&y[..40], &y[80..]].concat(), &y[40..80]);
                assert!(finite.iter().all(|y| y.is_finite()));
                assert!(special.iter().all(|y| !y.is_finite()), "{}: {special:?}", context.isa);
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
