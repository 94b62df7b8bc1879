//! Attention is its definition with every instruction set, for any sizes, cache formats, padding and steps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jetmoe_format::CacheFormat;
use jetmoe_kernels::*;
use proptest::prelude::*;

/// Sizes of heads and batch.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    format: CacheFormat,
    batch: usize,
    kv_heads: usize,
    slots: usize,
    channels: usize,
    capacity: usize,
}

/// Queries, keys, values and angles of some tokens.
struct Tokens {
    queries: Vec<f32>,
    keys_and_values: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

#[derive(Clone)]
struct OwnedCache {
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Sizes {
    fn width(&self) -> usize {
        self.kv_heads * self.channels
    }

    fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.channels).unwrap()
    }

    fn cache(&self) -> OwnedCache {
        // what is not written is NaN in every format
        let bytes = vec![0xFF; self.batch * self.kv_heads * self.capacity * self.row_bytes()];
        OwnedCache { keys: bytes.clone(), values: bytes }
    }

    fn random_tokens(&self, random: &mut fastrand::Rng, count: usize) -> Tokens {
        let mut floats =
            |count: usize| -> Vec<f32> { (0..count).map(|_| 4.0 * random.f32() - 2.0).collect() };
        let angles = floats(count * self.channels / 2);
        Tokens {
            queries: floats(count * self.slots * self.width()),
            keys_and_values: floats(2 * count * self.width()),
            cos: angles.iter().map(|angle| angle.cos()).collect(),
            sin: angles.iter().map(|angle| angle.sin()).collect(),
        }
    }

    fn step(
        &self,
        context: ExecContext<'_>,
        tokens: &Tokens,
        mask: &[i64],
        cache: &mut OwnedCache,
    ) -> Result<Vec<f32>> {
        self.step_of(context, tokens, Sequences::Masked { batch: self.batch, mask }, cache)
    }

    fn step_of(
        &self,
        context: ExecContext<'_>,
        tokens: &Tokens,
        sequences: Sequences<'_>,
        cache: &mut OwnedCache,
    ) -> Result<Vec<f32>> {
        let inputs = Attention {
            format: self.format,
            kv_heads: self.kv_heads,
            channels: self.channels,
            queries: &tokens.queries,
            keys_and_values: &tokens.keys_and_values,
            cos: &tokens.cos,
            sin: &tokens.sin,
            sequences,
        };
        let mut y = vec![f32::NAN; tokens.queries.len()];
        let (keys, values) = (&mut cache.keys, &mut cache.values);
        let (batch, capacity) = (self.batch, self.capacity);
        attention(context, &inputs, &mut Cache { keys, values, batch, capacity }, &mut y)?;
        Ok(y)
    }

    /// Rotates the halves of a head's channels against each other.
    fn rotate(&self, tokens: &Tokens, token: usize, head: &[f32]) -> Vec<f64> {
        let half = self.channels / 2;
        let wide = |number: f32| f64::from(number);
        let (first, second) = head.split_at(half);
        let angle = |table: &[f32], index| wide(table[token * half + index]);
        let rotated_first = (0..half).map(|index| {
            wide(first[index]) * angle(&tokens.cos, index) - wide(second[index]) * angle(&tokens.sin, index)
        });
        let rotated_second = (0..half).map(|index| {
            wide(second[index]) * angle(&tokens.cos, index) + wide(first[index]) * angle(&tokens.sin, index)
        });
        rotated_first.chain(rotated_second).collect()
    }

    fn decoded(&self, cache: &[u8], sequence: usize, head: usize, place: usize) -> Vec<f64> {
        let row = (sequence * self.kv_heads + head) * self.capacity + place;
        let mut numbers = vec![0.0; self.channels];
        let bytes = &cache[row * self.row_bytes()..][..self.row_bytes()];
        decode_cache_row(self.format, bytes, &mut numbers);
        numbers.into_iter().map(f64::from).collect()
    }

    /// The largest error of a stored number, relative to the largest of its row.
    fn storage_error(&self) -> f64 {
        match self.format {
            CacheFormat::F32 => 1e-6,
            CacheFormat::F16 => 1.0 / 2048.0,
            CacheFormat::Int8 => 0.501 / 127.0,
        }
    }

    /// Compares what a step wrote, and its result, with the definition.
    fn check(&self, tokens: &Tokens, mask: &[i64], cache: &OwnedCache, y: &[f32], what: &str) {
        let (new, columns) = (tokens.cos.len() * 2 / self.channels / self.batch, mask.len() / self.batch);
        for sequence in 0..self.batch {
            let mask = &mask[sequence * columns..][..columns];
            let mut place = mask[..columns - new].iter().filter(|column| **column != 0).count();
            for index in 0..new {
                let token = sequence * new + index;
                let rows = token * self.slots * self.width()..(token + 1) * self.slots * self.width();
                if mask[columns - new + index] == 0 {
                    assert!(y[rows].iter().all(|number| *number == 0.0), "{what}: padding");
                    continue;
                }
                for head in 0..self.kv_heads {
                    self.check_storage(tokens, (token, head), (cache, sequence, place), what);
                    for slot in 0..self.slots {
                        let start = ((token * self.slots + slot) * self.kv_heads + head) * self.channels;
                        let query = &tokens.queries[start..][..self.channels];
                        let query = self.rotate(tokens, token, query);
                        let expected = self.attended(&query, cache, (sequence, head), place + 1);
                        let found = &y[start..][..self.channels];
                        for (found, expected) in found.iter().zip(&expected) {
                            let error = (f64::from(*found) - expected).abs();
                            assert!(error < 2e-6, "{what}: {found} instead of {expected}");
                        }
                    }
                }
                place += 1;
            }
        }
    }

    fn check_storage(
        &self,
        tokens: &Tokens,
        (token, head): (usize, usize),
        (cache, sequence, place): (&OwnedCache, usize, usize),
        what: &str,
    ) {
        let start = (2 * token * self.kv_heads + head) * self.channels;
        let key = self.rotate(tokens, token, &tokens.keys_and_values[start..][..self.channels]);
        let value = &tokens.keys_and_values[start + self.width()..][..self.channels];
        let value: Vec<f64> = value.iter().copied().map(f64::from).collect();
        for (part, expected) in [(&cache.keys, key), (&cache.values, value)] {
            let largest = expected.iter().fold(0.0, |largest: f64, number| largest.max(number.abs()));
            for (found, expected) in self.decoded(part, sequence, head, place).iter().zip(expected) {
                let error = (found - expected).abs();
                assert!(error <= self.storage_error() * largest, "{what}: stored {found}, not {expected}");
            }
        }
    }

    /// softmax(q · keysᵀ / √channels) · values, in float64, over the keys that the cache holds.
    fn attended(
        &self,
        query: &[f64],
        cache: &OwnedCache,
        (sequence, head): (usize, usize),
        visible: usize,
    ) -> Vec<f64> {
        let scores: Vec<f64> = (0..visible)
            .map(|place| {
                let key = self.decoded(&cache.keys, sequence, head, place);
                query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (self.channels as f64).sqrt()
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; self.channels];
        for (place, weight) in weights.iter().enumerate() {
            let value = self.decoded(&cache.values, sequence, head, place);
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum += weight / total * value;
            }
        }
        sums
    }
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let format = prop::sample::select(CacheFormat::ALL);
    (format, 1_usize..4, 1_usize..4, 1_usize..4, 1_usize..30).prop_map(
        |(format, batch, kv_heads, slots, pairs)| {
            // every other size has whole vectors
            let channels = if pairs % 2 == 0 { 2 * pairs } else { 16 * pairs.div_ceil(4) };
            Sizes { format, batch, kv_heads, slots, channels, capacity: 0 }
        },
    )
}

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

/// Tokens `from..to` of some tokens.
fn part(sizes: &Sizes, tokens: &Tokens, from: usize, to: usize) -> Tokens {
    let rows = |numbers: &[f32], width: usize| numbers[from * width..to * width].to_vec();
    Tokens {
        queries: rows(&tokens.queries, sizes.slots * sizes.width()),
        keys_and_values: rows(&tokens.keys_and_values, 2 * sizes.width()),
        cos: rows(&tokens.cos, sizes.channels / 2),
        sin: rows(&tokens.sin, sizes.channels / 2),
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
