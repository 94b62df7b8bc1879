//! Norms and routers are their definitions in float64, for any sizes and with every instruction set, and a row has the same bits
//! alone and beside others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jetmoe_kernels::*;
use proptest::prelude::*;

const EPSILON: f32 = 1e-6;

fn random(random: &mut fastrand::Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| 4.0 * random.f32() - 2.0).collect()
}

fn normed(context: ExecContext<'_>, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    rms_norm(context, x, weight, EPSILON, &mut y).unwrap();
    y
}

#[derive(Debug, Clone, PartialEq)]
struct Routed {
    logits: Vec<f32>,
    experts: Vec<i64>,
    gates: Vec<f32>,
}

fn routed(context: ExecContext<'_>, x: &[f32], weight: &[f32], width: usize, k: usize) -> Result<Routed> {
    let (rows, experts) = (x.len() / width, weight.len() / width);
    let mut found = Routed {
        logits: vec![f32::NAN; rows * experts],
        experts: vec![-1; rows * k],
        gates: vec![f32::NAN; rows * k],
    };
    let Routed { logits, experts, gates } = &mut found;
    route(context, x, weight, width, k, Routing { logits, experts, gates })?;
    Ok(found)
}

fn contexts(threads: &dyn Threads) -> impl Iterator<Item = ExecContext<'_>> {
    Isa::available().into_iter().map(move |isa| ExecContext { isa, threads })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_norm_is_its_definition(rows in 0..20_usize, width in 1..150_usize, threads in 1..4_usize, seed: u64) {
        let mut seeded = fastrand::Rng::with_seed(seed);
        let (x, weight) = (random(&mut seeded, rows * width), random(&mut seeded, width));
        for context in contexts(&ScopedThreads(threads)) {
            let y = normed(context, &x, &weight);
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
                let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                let root = (squares / width as f64 + f64::from(EPSILON)).sqrt();
                for ((x, y), weight) in x.iter().zip(y).zip(&weight) {
                    let expected = f64::from(*x) / root * f64::from(*weight);
                    prop_assert!((f64::from(*y) - expected).abs() <= 1e-6 * expected.abs(), "{y} for {expected}");
                }
                prop_assert_eq!(y, normed(context, x, &weight), "alone");
            }
        }
    }

    #[test]
    fn a_router_is_its_definition(
        rows in 0..20_usize,
        width in 1..150_usize,
        (experts, k) in (1..20_usize).prop_flat_map(|experts| (Just(experts), 1..=experts)),
        threads in 1..4_usize,
        seed: u64,
    ) {
        let mut seeded = fastrand::Rng::with_seed(seed);
        let (x, weight) = (random(&mut seeded, rows * width), random(&mut seeded, experts * width));
        for context in contexts(&ScopedThreads(threads)) {
            let all = routed(context, &x, &weight, width, k).unwrap();
            for (row, x) in x.chunks_exact(width).enumerate() {
                let found = routed(context, x, &weight, width, k).unwrap();
                prop_assert_eq!(&found.logits, &all.logits[row * experts..][..experts], "alone");
                prop_assert_eq!(&found.experts, &all.experts[row * k..][..k], "alone");
                prop_assert_eq!(&found.gates, &all.gates[row * k..][..k], "alone");
                for (weight, found) in weight.chunks_exact(width).zip(&found.logits) {
                    let products = x.iter().zip(weight).map(|(x, weight)| f64::from(*x) * f64::from(*weight));
                    let size: f64 = products.clone().map(f64::abs).sum();
                    let error = (f64::from(*found) - products.sum::<f64>()).abs();
                    prop_assert!(error <= 2e-6 * size, "{error} of {size}");
                }
                let logits: Vec<f64> = found.logits.iter().map(|logit| f64::from(*logit)).collect();
                let mut order: Vec<usize> = (0..experts).collect();
                order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
                let best = order.iter().take(k).map(|expert| *expert as i64).collect::<Vec<_>>();
                prop_assert_eq!(&found.experts, &best);
                let powers: Vec<f64> = order.iter().take(k).map(|expert| logits[*expert].exp()).collect();
                for (gate, power) in found.gates.iter().zip(&powers) {
                    let expected = power / powers.iter().sum::<f64>();
                    prop_assert!((f64::from(*gate) - expected).abs() <= 1e-6, "{gate} for {expected}");
                }
            }
        }
    }
}

#[test]
fn equal_logits_select_the_lower_expert() {
    for context in contexts(&CallingThread) {
        let found = routed(context, &[1.0], &[2.0, 3.0, 3.0, -1.0, 3.0], 1, 4).unwrap();
        assert_eq!(found.experts, [1, 2, 4, 0]);
        assert_eq!(found.gates[0], found.gates[2]);
    }
}

#[test]
fn nan_stays_in_its_row() {
    for context in contexts(&CallingThread) {
        let found = routed(context, &[f32::NAN, 1.0, f32::INFINITY], &[2.0, 3.0], 1, 1).unwrap();
        assert_eq!(found.experts, [0, 1, 0]);
        assert!(found.gates[0].is_nan() && found.gates[1] == 1.0 && found.gates[2].is_nan(), "{found:?}");
        let y = normed(context, &[f32::NAN, 2.0], &[3.0]);
        assert!(y[0].is_nan() && (y[1] - 3.0).abs() < 1e-5, "{y:?}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let context = ExecContext { isa: Isa::Generic, threads: &CallingThread };
    assert_eq!(routed(context, &[1.0], &[2.0], 1, 2), Err(Error::ExpertsPerRow { k: 2, experts: 1 }));
    assert_eq!(routed(context, &[1.0], &[2.0], 1, 0), Err(Error::ExpertsPerRow { k: 0, experts: 1 }));
    assert!(matches!(routed(context, &[1.0; 3], &[2.0; 2], 2, 1), Err(Error::Length { tensor: "x", .. })));
    assert!(matches!(routed(context, &[1.0; 2], &[2.0; 3], 2, 1), Err(Error::Length { .. })));
    let mut y = [0.0; 2];
    assert!(matches!(rms_norm(context, &[1.0; 2], &[], 1e-6, &mut y), Err(Error::Length { .. })));
    assert!(matches!(rms_norm(context, &[1.0; 3], &[1.0; 2], 1e-6, &mut y), Err(Error::Length { .. })));
    assert!(matches!(rms_norm(context, &[1.0; 4], &[1.0; 2], 1e-6, &mut y), Err(Error::Length { .. })));
}
