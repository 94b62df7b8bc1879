//! Steps of random tokens, and the definition that they are compared with.

use jetmoe_format::CacheFormat;
use jetmoe_kernels::*;
use proptest::prelude::*;

/// Sizes of heads and batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) format: CacheFormat,
    pub(crate) batch: usize,
    pub(crate) kv_heads: usize,
    pub(crate) slots: usize,
    pub(crate) channels: usize,
    pub(crate) capacity: usize,
}

/// Queries, keys, values and angles of some tokens.
pub(crate) struct Tokens {
    pub(crate) queries: Vec<f32>,
    pub(crate) keys_and_values: Vec<f32>,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

#[derive(Clone)]
pub(crate) struct OwnedCache {
    pub(crate) keys: Vec<u8>,
    pub(crate) values: Vec<u8>,
}

impl Sizes {
    pub(crate) fn width(&self) -> usize {
        self.kv_heads * self.channels
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.channels).unwrap()
    }

    pub(crate) fn cache(&self) -> OwnedCache {
        // what is not written is NaN in every format
        let bytes = vec![0xFF; self.batch * self.kv_heads * self.capacity * self.row_bytes()];
        OwnedCache { keys: bytes.clone(), values: bytes }
    }

    pub(crate) fn random_tokens(&self, random: &mut fastrand::Rng, count: usize) -> Tokens {
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

    pub(crate) fn step(
        &self,
        context: ExecContext<'_>,
        tokens: &Tokens,
        mask: &[i64],
        cache: &mut OwnedCache,
    ) -> Result<Vec<f32>> {
        self.step_of(context, tokens, Sequences::Masked { batch: self.batch, mask }, cache)
    }

    pub(crate) fn step_of(
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
    pub(crate) fn rotate(&self, tokens: &Tokens, token: usize, head: &[f32]) -> Vec<f64> {
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

    pub(crate) fn decoded(&self, cache: &[u8], sequence: usize, head: usize, place: usize) -> Vec<f64> {
        let row = (sequence * self.kv_heads + head) * self.capacity + place;
        let mut numbers = vec![0.0; self.channels];
        let bytes = &cache[row * self.row_bytes()..][..self.row_bytes()];
        decode_cache_row(self.format, bytes, &mut numbers);
        numbers.into_iter().map(f64::from).collect()
    }

    /// The largest error of a stored number, relative to the largest of its row.
    pub(crate) fn storage_error(&self) -> f64 {
        match self.format {
            CacheFormat::F32 => 1e-6,
            CacheFormat::F16 => 1.0 / 2048.0,
            CacheFormat::Int8 => 0.501 / 127.0,
        }
    }

    /// Compares what a step wrote, and its result, with the definition.
    pub(crate) fn check(&self, tokens: &Tokens, mask: &[i64], cache: &OwnedCache, y: &[f32], what: &str) {
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

    pub(crate) fn check_storage(
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
    pub(crate) fn attended(
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

pub(crate) fn sizes() -> impl Strategy<Value = Sizes> {
    let format = prop::sample::select(CacheFormat::ALL);
    (format, 1_usize..4, 1_usize..4, 1_usize..4, 1_usize..30).prop_map(
        |(format, batch, kv_heads, slots, pairs)| {
            // every other size has whole vectors
            let channels = if pairs % 2 == 0 { 2 * pairs } else { 16 * pairs.div_ceil(4) };
            Sizes { format, batch, kv_heads, slots, channels, capacity: 0 }
        },
    )
}

/// Tokens `from..to` of some tokens.
pub(crate) fn part(sizes: &Sizes, tokens: &Tokens, from: usize, to: usize) -> Tokens {
    let rows = |numbers: &[f32], width: usize| numbers[from * width..to * width].to_vec();
    Tokens {
        queries: rows(&tokens.queries, sizes.slots * sizes.width()),
        keys_and_values: rows(&tokens.keys_and_values, 2 * sizes.width()),
        cos: rows(&tokens.cos, sizes.channels / 2),
        sin: rows(&tokens.sin, sizes.channels / 2),
    }
}
