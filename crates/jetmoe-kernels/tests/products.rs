//! Every instruction set that this processor has computes what the definition says, for any sizes.

mod weights;

use jetmoe_kernels::*;
use proptest::prelude::*;

use self::weights::{Owned, Random, by_definition};

const ELEMENTS: [(i64, i64); 9] =
    [(4, 16), (4, 32), (4, 64), (4, 128), (8, 16), (8, 32), (8, 64), (8, 128), (16, 0)];

/// Threads as a runtime has them.
struct Scoped(usize);

impl Threads for Scoped {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for index in 0..self.0 {
                scope.spawn(move || work(index));
            }
        });
    }
}

/// Each set that this processor has, by one thread and by several.
fn everywhere(mut test: impl FnMut(Compute<'_>)) {
    for instructions in InstructionSet::available() {
        for threads in [&CallingThread as &dyn Threads, &Scoped(3)] {
            test(Compute { instructions, threads });
        }
    }
}

/// The largest difference in units of the largest expected value.
fn distance(found: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(1e-30, |largest: f64, value| largest.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / largest).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_meet_the_matrices_of_their_experts(
        seed in any::<u64>(),
        element in 0..ELEMENTS.len(),
        zero_points in any::<bool>(),
        (experts, per_row) in (1_usize..5).prop_flat_map(|experts| (Just(experts), 1..=experts)),
        outputs in 1_usize..80,
        inputs in 1_usize..200,
        rows in 0_usize..70,
    ) {
        let mut random = Random::new(seed);
        let (bits, group_size) = ELEMENTS[element];
        let element = Element::new(bits, group_size).unwrap();
        let layout = Layout { experts, outputs, inputs, element, order: RowOrder::AsStored };
        let weight = Owned::random(layout, zero_points, &mut random);
        let x = random.floats(rows * inputs);
        let chosen: Vec<i64> = (0..rows).flat_map(|_| random.choice(experts, per_row)).collect();
        let choices = Choices { experts: &chosen, per_row };
        let expected: Vec<f64> = chosen.iter().enumerate().flat_map(|(slot, expert)| {
            let row = slot / per_row;
            by_definition(&weight, *expert as usize, &x[row * inputs..][..inputs])
        }).collect();
        everywhere(|compute| {
            let mut y = vec![f32::NAN; rows * per_row * outputs];
            expert_linear(compute, &x, choices, &weight.view(), &mut y).unwrap();
            let distance = distance(&y, &expected);
            assert!(distance < 1e-5, "{}: {distance}", compute.instructions);
        });

        let slots = random.floats(rows * per_row * inputs);
        let gates = random.floats(rows * per_row);
        let mut expected = vec![0.0; rows * outputs];
        for (slot, expert) in chosen.iter().enumerate() {
            let products = by_definition(&weight, *expert as usize, &slots[slot * inputs..][..inputs]);
            for (sum, product) in expected[slot / per_row * outputs..].iter_mut().zip(products) {
                *sum += product * f64::from(gates[slot]);
            }
        }
        everywhere(|compute| {
            let mut y = vec![f32::NAN; rows * outputs];
            expert_linear_sum(compute, &slots, choices, &gates, &weight.view(), &mut y).unwrap();
            let distance = distance(&y, &expected);
            assert!(distance < 1e-5, "{}: {distance}", compute.instructions);
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
        activation in 0..Activation::NAMES.len(),
    ) {
        let mut random = Random::new(seed);
        let (bits, group_size) = ELEMENTS[element];
        let element = Element::new(bits, group_size).unwrap();
        let (_, activation) = Activation::NAMES[activation];
        let up = Layout { experts, outputs: 2 * intermediate, inputs: hidden, element, order: RowOrder::Halves };
        let down = Layout { experts, outputs: hidden, inputs: intermediate, element, order: RowOrder::AsStored };
        let (up, down) = (Owned::random(up, false, &mut random), Owned::random(down, true, &mut random));
        let x = random.floats(rows * hidden);
        let chosen: Vec<i64> = (0..rows).flat_map(|_| random.choice(experts, 1)).collect();
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
        everywhere(|compute| {
            let mut y = vec![f32::NAN; rows * hidden];
            let mlp = Mlp { gate_and_up: up.view(), down: down.view(), activation };
            let choices = Choices { experts: &chosen, per_row: 1 };
            expert_mlp(compute, &x, choices, &gates, &mlp, &mut y).unwrap();
            // a gated value that lies between two of its 255 steps may be rounded either way
            let distance = distance(&y, &expected);
            assert!(distance < 2e-2, "{}: {distance}", compute.instructions);
        });
    }
}

#[test]
fn sets_differ_by_the_order_of_additions_only() {
    // what emulated.sh reads
    println!(
        "SETS {}",
        InstructionSet::available().iter().map(|set| set.to_string()).collect::<Vec<_>>().join(" ")
    );
    let mut random = Random::new(7);
    for (bits, group_size) in ELEMENTS {
        let element = Element::new(bits, group_size).unwrap();
        let layout = Layout { experts: 3, outputs: 96, inputs: 320, element, order: RowOrder::AsStored };
        let weight = Owned::random(layout, true, &mut random);
        for rows in [1, 2, 3, 4, 5, 16, 17, 130] {
            let x = random.floats(rows * 320);
            let chosen: Vec<i64> = (0..rows).flat_map(|_| random.choice(3, 1)).collect();
            let choices = Choices { experts: &chosen, per_row: 1 };
            let mut plain = vec![0.0; rows * 96];
            let compute = Compute { instructions: InstructionSet::PLAIN, threads: &CallingThread };
            expert_linear(compute, &x, choices, &weight.view(), &mut plain).unwrap();
            let plain: Vec<f64> = plain.into_iter().map(f64::from).collect();
            everywhere(|compute| {
                let mut y = vec![0.0; rows * 96];
                expert_linear(compute, &x, choices, &weight.view(), &mut y).unwrap();
                let distance = distance(&y, &plain);
                assert!(distance < 2e-6, "{bits}/{group_size} {}: {distance}", compute.instructions);
            });
        }
    }
}

#[test]
fn one_hot_expert_and_idle_ones() {
    let mut random = Random::new(3);
    let element = Element::Int4(GroupSize::G32);
    let layout = Layout { experts: 8, outputs: 64, inputs: 64, element, order: RowOrder::AsStored };
    let weight = Owned::random(layout, false, &mut random);
    let x = random.floats(200 * 64);
    let chosen = vec![5; 200];
    let expected: Vec<f64> = x.chunks_exact(64).flat_map(|row| by_definition(&weight, 5, row)).collect();
    everywhere(|compute| {
        let mut y = vec![0.0; 200 * 64];
        let choices = Choices { experts: &chosen, per_row: 1 };
        expert_linear(compute, &x, choices, &weight.view(), &mut y).unwrap();
        assert!(distance(&y, &expected) < 1e-5);
    });
}

#[test]
fn what_is_no_number_stays_in_its_row() {
    let mut random = Random::new(9);
    for (bits, group_size) in ELEMENTS {
        let element = Element::new(bits, group_size).unwrap();
        let layout = Layout { experts: 1, outputs: 40, inputs: 100, element, order: RowOrder::AsStored };
        let weight = Owned::random(layout, true, &mut random);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.floats(3 * 100);
            x[100 + 70] = odd;
            everywhere(|compute| {
                let mut y = vec![0.0; 3 * 40];
                linear(compute, &x, &weight.view(), &mut y).unwrap();
                let (clean, odd) = ([&y[..40], &y[80..]].concat(), &y[40..80]);
                assert!(clean.iter().all(|y| y.is_finite()));
                assert!(odd.iter().all(|y| !y.is_finite()), "{}: {odd:?}", compute.instructions);
            });
        }
    }
}

#[test]
fn rows_are_looked_up_as_they_are_multiplied() {
    let mut random = Random::new(5);
    for (bits, group_size) in ELEMENTS {
        let element = Element::new(bits, group_size).unwrap();
        let layout = Layout { experts: 1, outputs: 70, inputs: 50, element, order: RowOrder::AsStored };
        let weight = Owned::random(layout, true, &mut random);
        let mut rows = vec![0.0; 3 * 50];
        look_up(&[69, 0, 33], &weight.view(), &mut rows).unwrap();
        let matrix = weight.matrix(0);
        assert_eq!(rows, [&matrix[69 * 50..], &matrix[..50], &matrix[33 * 50..34 * 50]].concat());
        let error = look_up(&[70], &weight.view(), &mut rows[..50]).unwrap_err();
        assert_eq!(error.to_string(), "row 70 was asked for; the table has 70");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut random = Random::new(1);
    let element = Element::Int4(GroupSize::G32);
    let layout = Layout { experts: 2, outputs: 32, inputs: 32, element, order: RowOrder::AsStored };
    let weight = Owned::random(layout, false, &mut random);
    let compute = Compute { instructions: InstructionSet::PLAIN, threads: &CallingThread };
    let mut y = vec![0.0; 32];
    let choose = |experts| Choices { experts, per_row: 1 };
    let x = [0.0; 32];
    let cases = [
        (
            expert_linear(compute, &x, choose(&[2]), &weight.view(), &mut y),
            "row 0 chose expert 2; there are 2",
        ),
        (
            expert_linear(compute, &x, choose(&[-1]), &weight.view(), &mut y),
            "row 0 chose expert -1; there are 2",
        ),
        (
            expert_linear(compute, &x[1..], choose(&[0]), &weight.view(), &mut y),
            "x has 31 elements and should have 32",
        ),
        (linear(compute, &x, &weight.view(), &mut y), "the matrices of a weight for all rows has 2 elements"),
    ];
    for (result, expected) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let short = Weight::new(layout, &[0; 5], Some(&[]), None).unwrap_err();
    assert_eq!(short.to_string(), "the weight has 5 elements and should have 1024");
    // filled up to whole blocks, these sizes wrap around to small ones
    for (experts, outputs) in [(1 << 60, 32), (1, 1 << 62), (1 << 32, 1 << 32)] {
        let error = Weight::new(Layout { experts, outputs, ..layout }, &[], Some(&[]), None).unwrap_err();
        assert!(error.to_string().ends_with("fits into no memory"), "{error}");
    }
    let halves = Owned::random(Layout { order: RowOrder::Halves, ..layout }, false, &mut random);
    let error = expert_linear(compute, &x, choose(&[0]), &halves.view(), &mut y).unwrap_err();
    assert_eq!(error.to_string(), "a weight whose halves are interleaved can only be the first of an MLP");
    assert!(Element::new(3, 32).is_err() && Element::new(4, 20).is_err());
    assert!(InstructionSet::named("sse").unwrap_err().to_string().contains("plain"));
}
