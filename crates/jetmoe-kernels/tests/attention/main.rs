//! Attention is its definition with every instruction set, for any sizes, cache formats, padding and steps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod definition;
mod listed;

use jetmoe_format::CacheFormat;
use jetmoe_kernels::*;
use proptest::prelude::*;

use crate::definition::{Sizes, Tokens, part, sizes};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Steps of several lengths, with padding anywhere, continue what earlier steps cached.
    #[test]
    fn attention_is_its_definition(
        seed in any::<u64>(),
        sizes in sizes(),
        steps in prop::collection::vec(1_usize..80, 1..4),
        padding in 0_u8..3,
    ) {
        let sizes = Sizes { capacity: steps.iter().sum::<usize>() + 3, ..sizes };
        for isa in Isa::available() {
            for threads in [&CallingThread as &dyn Threads, &ScopedThreads(3)] {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut cache = sizes.cache();
                // rows of the mask so far
                let mut masks = vec![Vec::new(); sizes.batch];
                for new in &steps {
                    let tokens = sizes.random_tokens(&mut random, sizes.batch * new);
                    for mask in &mut masks {
                        mask.extend((0..*new).map(|_| i64::from(padding == 0 || random.u8(0..3) >= padding)));
                    }
                    let mask = masks.concat();
                    let y = sizes.step(ExecContext { isa, threads }, &tokens, &mask, &mut cache).unwrap();
                    sizes.check(&tokens, &mask, &cache, &y, &format!("{isa}"));
                }
            }
        }
    }

    /// A long cache is computed in parts by several threads.
    #[test]
    fn a_long_cache_is_summed_in_parts(
        seed in any::<u64>(),
        sizes in sizes(),
        cached in 400_usize..1800,
        new in 1_usize..4,
    ) {
        let sizes = Sizes { capacity: cached + new, batch: 1, ..sizes };
        for isa in Isa::available() {
            for threads in [&CallingThread as &dyn Threads, &ScopedThreads(7)] {
                let context = ExecContext { isa, threads };
                let mut random = fastrand::Rng::with_seed(seed);
                let mut cache = sizes.cache();
                let prompt = sizes.random_tokens(&mut random, cached);
                sizes.step(context, &prompt, &vec![1; cached], &mut cache).unwrap();
                let tokens = sizes.random_tokens(&mut random, new);
                let mask = vec![1; cached + new];
                let y = sizes.step(context, &tokens, &mask, &mut cache).unwrap();
                sizes.check(&tokens, &mask, &cache, &y, &format!("{isa}"));
            }
        }
    }
}

/// The same bits, however a sequence is cut into steps, whatever is computed beside it, and on any number of threads.
#[test]
fn a_token_has_one_result() {
    for format in CacheFormat::ALL {
        for channels in [32, 6] {
            let format = *format;
            let sizes = Sizes { format, batch: 1, kv_heads: 2, slots: 2, channels, capacity: 1100 };
            let count = 1100;
            let tokens = sizes.random_tokens(&mut fastrand::Rng::with_seed(7), count);
            for isa in Isa::available() {
                let context = |threads| ExecContext { isa, threads };
                let mut cache = sizes.cache();
                let whole =
                    sizes.step(context(&CallingThread), &tokens, &vec![1; count], &mut cache).unwrap();
                let width = sizes.slots * sizes.width();
                for threads in [&CallingThread as &dyn Threads, &ScopedThreads(5)] {
                    let mut chunked = sizes.cache();
                    let mut from = 0;
                    for to in [1, 2, 70, 133, 500, 1040, 1097, 1098, 1100] {
                        let some = part(&sizes, &tokens, from, to);
                        let y = sizes.step(context(threads), &some, &vec![1; to], &mut chunked).unwrap();
                        assert_eq!(
                            y,
                            whole[from * width..to * width],
                            "{isa} {format} {channels} {from}..{to}"
                        );
                        from = to;
                    }
                    assert!(chunked.keys == cache.keys && chunked.values == cache.values, "{isa} {format}");
                }
                // as the second sequence of a batch, behind one with other tokens and padding
                let batch = Sizes { batch: 2, ..sizes };
                let others = sizes.random_tokens(&mut fastrand::Rng::with_seed(8), count);
                let both = Tokens {
                    queries: [others.queries, tokens.queries.clone()].concat(),
                    keys_and_values: [others.keys_and_values, tokens.keys_and_values.clone()].concat(),
                    cos: [others.cos, tokens.cos.clone()].concat(),
                    sin: [others.sin, tokens.sin.clone()].concat(),
                };
                let mask = [[0; 300].as_slice(), &[1; 800], &[1; 1100]].concat();
                let y = batch.step(context(&ScopedThreads(2)), &both, &mask, &mut batch.cache()).unwrap();
                assert_eq!(y[count * width..], whole, "{isa} {format} {channels}");
            }
        }
    }
}

/// A later token that is not a number leaves the results before it as they are.
#[test]
fn infinity_and_nan_reach_later_tokens_only() {
    for format in CacheFormat::ALL {
        let sizes = Sizes { format: *format, batch: 1, kv_heads: 1, slots: 2, channels: 16, capacity: 90 };
        let clean = sizes.random_tokens(&mut fastrand::Rng::with_seed(1), 90);
        for isa in Isa::available() {
            let context = ExecContext { isa, threads: &CallingThread };
            let expected = sizes.step(context, &clean, &[1; 90], &mut sizes.cache()).unwrap();
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut tokens = part(&sizes, &clean, 0, 90);
                // a value of token 70
                tokens.keys_and_values[70 * 32 + 16 + 3] = special;
                let y = sizes.step(context, &tokens, &[1; 90], &mut sizes.cache()).unwrap();
                assert_eq!(y[..70 * 32], expected[..70 * 32], "{isa} {format} {special}");
                assert!(y[70 * 32..].chunks(16).all(|head| !head[3].is_finite()), "{isa} {format} {special}");
            }
        }
    }
}

#[test]
fn a_row_of_zeros_or_of_tiny_numbers_is_stored() {
    let sizes =
        Sizes { format: CacheFormat::Int8, batch: 1, kv_heads: 1, slots: 1, channels: 4, capacity: 2 };
    let mut tokens = sizes.random_tokens(&mut fastrand::Rng::with_seed(1), 2);
    tokens.keys_and_values.fill(0.0);
    tokens.keys_and_values[8..16].fill(1e-44);
    for isa in Isa::available() {
        let context = ExecContext { isa, threads: &CallingThread };
        let mut cache = sizes.cache();
        let y = sizes.step(context, &tokens, &[1, 1], &mut cache).unwrap();
        assert!(y.iter().all(|number| number.abs() < 1e-43), "{isa}: {y:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let sizes = Sizes { format: CacheFormat::F16, batch: 2, kv_heads: 2, slots: 2, channels: 4, capacity: 5 };
    let tokens = sizes.random_tokens(&mut fastrand::Rng::with_seed(1), 6);
    let context = ExecContext { isa: Isa::Generic, threads: &CallingThread };
    let refused = |sizes: &Sizes, tokens: &Tokens, mask: &[i64]| {
        let mut cache = Sizes { capacity: 5, ..*sizes }.cache();
        let before = cache.clone();
        let error = sizes.step(context, tokens, mask, &mut cache).unwrap_err();
        assert!(cache.keys == before.keys && cache.values == before.values);
        error.to_string()
    };
    // three tokens behind three cached ones; in the first sequence one of them is padding
    let mask = [1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1];
    assert_eq!(refused(&sizes, &tokens, &mask), "sequence 1 has 6 tokens, in a cache for 5");
    assert_eq!(
        refused(&sizes, &tokens, &mask[..11]),
        "the attention mask has 11 elements and should have 10"
    );
    assert_eq!(refused(&sizes, &tokens, &[1; 4]), "the attention mask has 4 elements and should have 6");
    let more = Sizes { capacity: 9, ..sizes };
    assert_eq!(refused(&more, &tokens, &mask), "the cached keys has 160 elements and should have 288");
    let mut short = part(&sizes, &tokens, 0, 6);
    short.sin.pop();
    assert_eq!(refused(&sizes, &short, &mask), "the sines has 11 elements and should have 12");
    let odd = Sizes { channels: 3, ..sizes };
    assert!(refused(&odd, &tokens, &mask).starts_with("2 key heads of 3 channels"));
    let three = Sizes { batch: 4, ..sizes };
    assert!(refused(&three, &tokens, &mask).starts_with("the tokens of all sequences"));
}

/// Without tokens there is nothing to write and no result.
#[test]
fn a_step_without_tokens_changes_nothing() {
    let sizes = Sizes { format: CacheFormat::F32, batch: 1, kv_heads: 1, slots: 2, channels: 4, capacity: 2 };
    let tokens = sizes.random_tokens(&mut fastrand::Rng::with_seed(1), 2);
    let mut cache = sizes.cache();
    let before = cache.clone();
    for isa in Isa::available() {
        let context = ExecContext { isa, threads: &CallingThread };
        let none = part(&sizes, &tokens, 0, 0);
        assert_eq!(sizes.step(context, &none, &[], &mut cache).unwrap(), Vec::<f32>::new());
        // two tokens of padding
        assert_eq!(sizes.step(context, &tokens, &[0, 0], &mut cache).unwrap(), vec![0.0; 16]);
    }
    assert!(cache.keys == before.keys && cache.values == before.values);
}
