//! Sequences that a step lists, in any rows of the cache.

use jetmoe_format::CacheFormat;
use jetmoe_kernels::*;

use crate::definition::{Sizes, Tokens, part};

fn joined(parts: &[Tokens]) -> Tokens {
    let concat = |numbers: fn(&Tokens) -> &Vec<f32>| parts.iter().flat_map(numbers).copied().collect();
    Tokens {
        queries: concat(|part| &part.queries),
        keys_and_values: concat(|part| &part.keys_and_values),
        cos: concat(|part| &part.cos),
        sin: concat(|part| &part.sin),
    }
}

/// The same bits as alone: sequences of different lengths, in any rows of a cache and in any order, one of them in two places of
/// a step. Rows that are not listed are left as they are.
#[test]
fn listed_sequences_have_the_results_that_they_have_alone() {
    for format in CacheFormat::ALL {
        for channels in [32, 6] {
            let one = Sizes { format: *format, batch: 1, kv_heads: 3, slots: 2, channels, capacity: 700 };
            let rows = Sizes { batch: 5, ..one };
            let width = one.slots * one.width();
            let lengths = [640, 3, 90];
            let mut random = fastrand::Rng::with_seed(3);
            let tokens = lengths.map(|length| one.random_tokens(&mut random, length));
            let sequence = |index: usize, from, to| part(&one, &tokens[index], from, to);
            for isa in Isa::available() {
                for threads in [&CallingThread as &dyn Threads, &ScopedThreads(5)] {
                    let context = ExecContext { isa, threads };
                    let alone: Vec<Vec<f32>> = (0..3)
                        .map(|index| {
                            let mask = vec![1; lengths[index]];
                            one.step(context, &tokens[index], &mask, &mut one.cache()).unwrap()
                        })
                        .collect();
                    let mut cache = rows.cache();
                    let mut check = |list: &[i64], parts: &[(usize, usize, usize)]| {
                        let step: Vec<Tokens> =
                            parts.iter().map(|(index, from, to)| sequence(*index, *from, *to)).collect();
                        let y = rows
                            .step_of(context, &joined(&step), Sequences::Listed(list), &mut cache)
                            .unwrap();
                        let expected = parts.iter().flat_map(|(index, from, to)| {
                            alone[*index][from * width..to * width].iter().copied()
                        });
                        assert_eq!(y, expected.collect::<Vec<_>>(), "{isa} {format} {channels} {list:?}");
                    };
                    check(&[4, 0, 600, 1, 0, 2], &[(0, 0, 600), (1, 0, 2)]);
                    check(&[1, 2, 1, 4, 600, 1, 0, 0, 88], &[(1, 2, 3), (0, 600, 601), (2, 0, 88)]);
                    // the last token of each sequence comes last
                    let list = [4, 601, 38, 0, 88, 1, 4, 639, 1, 0, 89, 1];
                    check(&list, &[(0, 601, 639), (2, 88, 89), (0, 639, 640), (2, 89, 90)]);
                    let row_bytes = rows.kv_heads * rows.capacity * rows.row_bytes();
                    for untouched in [2, 3] {
                        assert!(cache.keys[untouched * row_bytes..][..row_bytes].iter().all(|b| *b == 0xFF));
                    }
                }
            }
        }
    }
}

#[test]
fn a_list_of_sequences_that_does_not_fit_is_refused_and_changes_nothing() {
    let sizes = Sizes { format: CacheFormat::F32, batch: 3, kv_heads: 1, slots: 1, channels: 4, capacity: 5 };
    let tokens = sizes.random_tokens(&mut fastrand::Rng::with_seed(1), 4);
    let context = ExecContext { isa: Isa::Generic, threads: &CallingThread };
    let refused = |list: &[i64]| {
        let mut cache = sizes.cache();
        let before = cache.clone();
        let error = sizes.step_of(context, &tokens, Sequences::Listed(list), &mut cache).unwrap_err();
        assert!(cache.keys == before.keys && cache.values == before.values, "{list:?}");
        error.to_string()
    };
    assert_eq!(refused(&[0, 0, 4, 1]), "the list of sequences has 4 elements and should have 3");
    assert_eq!(refused(&[0, 0, 3]), "the tokens of all sequences has 4 elements and should have 3");
    assert_eq!(refused(&[2, 2, 4]), "sequence 2 has 6 tokens, in a cache for 5");
    assert_eq!(
        refused(&[2, i64::MAX, 4]),
        format!("sequence 2 has {} tokens, in a cache for 5", 4 + (i64::MAX as usize))
    );
    for list in
        [&[3, 0, 4][..], &[0, 0, 5], &[-1, 0, 4], &[0, -1, 4], &[0, 0, -4], &[0, 0, i64::MAX, 1, 0, 1]]
    {
        let error = refused(list);
        assert!(error.starts_with("sequence 0 of the list, ["), "{list:?}: {error}");
    }
    // a second part of row 1 that does not follow the first
    assert!(refused(&[1, 0, 2, 1, 3, 2]).starts_with("sequence 1 of the list, [1, 3, 2], is not a row of 3"));
    assert!(refused(&[1, 0, 2, 1, 1, 2]).starts_with("sequence 1 of the list, [1, 1, 2], is not a row of 3"));
}
