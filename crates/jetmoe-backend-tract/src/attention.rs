//! ONNX Runtime's contrib operators of graphs with an in-place cache, for tract: `com.microsoft.GroupQueryAttention`, whose
//! cache is not an operand here, and `com.microsoft.RotaryEmbedding`, in float32 and in the form that `jetmoe-graph` writes.

mod operand_cache;

use jetmoe_kernels::exp;
use multiversion::multiversion;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::operator::{Kernel, ValueType, boxed};
use crate::shared_cache::StepCache;
use crate::threads::on_step_threads;

pub(crate) use self::operand_cache::replace_others;

/// Name of `GroupQueryAttention` in rewritten graphs: without the operands and results of the cache.
pub(crate) const CACHED_ATTENTION: &str = "JetMoeCachedAttention";

/// Attribute of [`CACHED_ATTENTION`]: the layer whose cache it updates.
pub(crate) const LAYER: &str = "layer";

/// Registers the operators.
pub(crate) fn register(register: &mut tract_onnx::model::OnnxOpRegister) {
    register.insert(CACHED_ATTENTION, |_, node| {
        let layer = usize::try_from(node.get_attr::<i64>(LAYER)?)?;
        Ok((boxed(CachedAttention::of_node(node, layer)?), Vec::new()))
    });
    operand_cache::register(register);
    register.insert("RotaryEmbedding", rotary);
}

fn rotary(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let interleaved: i64 = node.get_attr_opt("interleaved")?.unwrap_or(0);
    ensure!(interleaved == 0, "pairs of neighbours are not rotated here, only halves");
    Ok((boxed(RotaryEmbedding), Vec::new()))
}

/// Causal attention of groups of query heads that share a key head. The new keys and values are written into the cache,
/// behind the cached ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CachedAttention {
    layer: usize,
    heads: usize,
    kv_heads: usize,
    scale_bits: u32,
}

/// The data of a key head: results of its queries, its keys and its values.
type HeadParts<'a> = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]);

/// Operands of the operator: queries, keys and values of the new tokens, place of each sequence's last token, and the largest
/// number of tokens.
const OPERANDS: usize = 5;

impl Kernel for CachedAttention {
    fn name(&self) -> StaticName {
        CACHED_ATTENTION.into()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let [queries, keys, values, last_places, longest] = operands else {
            bail!("{CACHED_ATTENTION} takes {OPERANDS} operands, and there are {}", operands.len())
        };
        for heads in [queries, keys, values] {
            ensure!(
                heads.0 == f32::datum_type() && heads.1.len() == 3,
                "heads are {heads:?}, expected 3 axes of float32"
            );
        }
        for places in [last_places, longest] {
            ensure!(places.0 == i32::datum_type(), "places are {places:?}, expected int32");
        }
        let widths = [queries, keys, values].map(|heads| heads.1[2].as_usize());
        // sizes that depend on the step are compared in the step
        if let [Some(width), Some(_), Some(_)] = widths {
            let channels = width / self.heads;
            let expected = [self.heads, self.kv_heads, self.kv_heads].map(|heads| Some(heads * channels));
            ensure!(
                channels > 0 && widths == expected,
                "{} query heads and {} key heads do not fit widths {widths:?}",
                self.heads,
                self.kv_heads
            );
        }
        Ok(tvec![queries.clone()])
    }

    fn compute(&self, context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Ok([queries, keys, values, last_places, _longest]) =
            <[TValue; OPERANDS]>::try_from(operands.into_vec())
        else {
            bail!("{CACHED_ATTENTION} takes {OPERANDS} operands")
        };
        let (key_buffer, value_buffer) = StepCache::layer(context, self.layer)?;
        let (mut key_buffer, mut value_buffer) = (key_buffer.lock(), value_buffer.lock());
        let result =
            self.attend([&queries, &keys, &values, &last_places], &mut key_buffer, &mut value_buffer)?;
        Ok(tvec![result.into_tvalue()])
    }
}

impl CachedAttention {
    /// The operator of a node, with the cache of a layer.
    fn of_node(node: &NodeProto, layer: usize) -> TractResult<Self> {
        let size = |name: &str| Ok::<usize, TractError>(usize::try_from(node.get_attr::<i64>(name)?)?);
        let scale: f32 = node.get_attr("scale")?;
        let (heads, kv_heads) = (size("num_heads")?, size("kv_num_heads")?);
        ensure!(
            kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads),
            "{heads} query heads do not share {kv_heads} key heads"
        );
        Ok(CachedAttention { layer, heads, kv_heads, scale_bits: scale.to_bits() })
    }

    /// Writes the new keys and values into the buffers, and computes attention over these.
    fn attend(
        &self,
        [queries, keys, values, last_places]: [&TValue; 4],
        key_buffer: &mut Tensor,
        value_buffer: &mut Tensor,
    ) -> TractResult<Tensor> {
        let [batch, sequence, width] = *queries.shape() else { bail!("queries are {:?}", queries.shape()) };
        let [rows, kv_heads, capacity, channels] = *key_buffer.shape() else {
            bail!("a cache is {:?}", key_buffer.shape())
        };
        let new_shape = [batch, sequence, kv_heads * channels];
        ensure!(
            rows == batch
                && kv_heads == self.kv_heads
                && width == self.heads * channels
                && keys.shape() == new_shape
                && values.shape() == new_shape
                && value_buffer.shape() == key_buffer.shape(),
            "queries {:?}, keys {:?} and values {:?} do not fit a cache {:?}",
            queries.shape(),
            keys.shape(),
            values.shape(),
            key_buffer.shape()
        );
        let mut result = Tensor::zero::<f32>(queries.shape())?;
        {
            let (queries, keys, values) =
                (queries.try_as_plain_ram()?, keys.try_as_plain_ram()?, values.try_as_plain_ram()?);
            let (queries, keys, values) =
                (queries.as_slice::<f32>()?, keys.as_slice::<f32>()?, values.as_slice::<f32>()?);
            let last_places = last_places.try_as_plain_ram()?;
            let last_places = last_places.as_slice::<i32>()?;
            let totals = last_places.iter().map(|last| Ok(usize::try_from(*last)? + 1));
            let totals = totals.collect::<TractResult<Vec<usize>>>()?;
            ensure!(
                totals.iter().all(|total| *total <= capacity),
                "{totals:?} tokens in a cache for {capacity}"
            );
            ensure!(totals.len() == batch && sequence > 0, "{totals:?} tokens of {batch} sequences");
            let mut key_cache = key_buffer.try_as_plain_ram_mut()?;
            let mut value_cache = value_buffer.try_as_plain_ram_mut()?;
            let (key_cache, value_cache) =
                (key_cache.as_slice_mut::<f32>()?, value_cache.as_slice_mut::<f32>()?);
            let mut output = result.try_as_plain_ram_mut()?;
            let output = output.as_slice_mut::<f32>()?;

            let group = self.heads / kv_heads;
            let size = capacity * channels;
            // results by key head, one task each: [batch, kv_heads, sequence, group * channels]
            let mut by_head = vec![0.0; output.len()];
            let head =
                |(index, ((by_head, key_cache), value_cache)): (usize, HeadParts<'_>)| -> TractResult<()> {
                    let (row, head) = (index / kv_heads, index % kv_heads);
                    let total = totals[row];
                    // new tokens follow the cached ones; tokens after the end of a prompt are padding
                    let past = total.saturating_sub(sequence);
                    for token in 0..sequence.min(capacity - past) {
                        let from = ((row * sequence + token) * kv_heads + head) * channels;
                        let to = (past + token) * channels;
                        key_cache[to..to + channels].copy_from_slice(&keys[from..from + channels]);
                        value_cache[to..to + channels].copy_from_slice(&values[from..from + channels]);
                    }
                    let mut tile = Vec::with_capacity(TILE.min(sequence) * group * channels);
                    for (index, results) in by_head.chunks_mut(TILE * group * channels).enumerate() {
                        let first = index * TILE;
                        let tokens = results.len() / (group * channels);
                        tile.clear();
                        for token in first..first + tokens {
                            let from = ((row * sequence + token) * self.heads + head * group) * channels;
                            tile.extend_from_slice(&queries[from..from + group * channels]);
                        }
                        // keys of the last token of the block, and of the first one
                        let seen = (past + first + tokens).min(capacity);
                        let seen_by = |token: usize| (past + first + token + 1).min(capacity);
                        let (keys, values) = (&key_cache[..seen * channels], &value_cache[..seen * channels]);
                        let attended = Attended { keys, values, channels, group, scale: self.scale() };
                        match tokens {
                            1 => attend_one(&tile, &attended, results),
                            _ => attend(&tile, &attended, seen_by, results)?,
                        }
                    }
                    Ok(())
                };
            let parts = by_head
                .par_chunks_exact_mut(sequence * group * channels)
                .zip(key_cache.par_chunks_exact_mut(size))
                .zip(value_cache.par_chunks_exact_mut(size))
                .enumerate();
            on_step_threads(|| parts.try_for_each(head))?;
            for (index, part) in by_head.chunks_exact(group * channels).enumerate() {
                let (token, head) = (index % sequence, index / sequence % kv_heads);
                let row = index / sequence / kv_heads;
                let to = ((row * sequence + token) * self.heads + head * group) * channels;
                output[to..to + group * channels].copy_from_slice(part);
            }
        }
        Ok(result)
    }

    fn scale(&self) -> f32 {
        f32::from_bits(self.scale_bits)
    }
}

/// Tokens of a prompt whose queries are multiplied with the keys in one product.
const TILE: usize = 32;

/// Keys and values that the queries of a key head attend to.
struct Attended<'a> {
    /// `[seen, channels]`
    keys: &'a [f32],
    /// `[seen, channels]`
    values: &'a [f32],
    channels: usize,
    /// Queries of a token.
    group: usize,
    scale: f32,
}

/// softmax(q · keysᵀ · scale) · values for the queries `[tokens, group, channels]` of some tokens, each of which attends to
/// a number of keys.
fn attend(
    queries: &[f32],
    attended: &Attended<'_>,
    seen_by: impl Fn(usize) -> usize,
    results: &mut [f32],
) -> TractResult<()> {
    let Attended { keys, values, channels, group, scale } = *attended;
    let (rows, seen) = (queries.len() / channels, keys.len() / channels);
    let queries = ArrayView2::from_shape((rows, channels), queries)?;
    let keys = ArrayView2::from_shape((seen, channels), keys)?;
    let values = ArrayView2::from_shape((seen, channels), values)?;
    let mut scores = Array2::zeros((rows, seen));
    general_mat_mul(scale, &queries, &keys.t(), 0.0, &mut scores);
    for (row, scores) in
        scores.as_slice_mut().into_iter().flat_map(|all| all.chunks_exact_mut(seen)).enumerate()
    {
        let (visible, hidden) = scores.split_at_mut(seen_by(row / group));
        softmax(visible);
        hidden.fill(0.0);
    }
    general_mat_mul(1.0, &scores, &values, 0.0, &mut ArrayViewMut2::from_shape((rows, channels), results)?);
    Ok(())
}

/// Single-token variant. It is memory-bound, so a matrix product would not be faster.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma", "aarch64+neon"))]
fn attend_one(queries: &[f32], attended: &Attended<'_>, results: &mut [f32]) {
    let Attended { keys, values, channels, scale, .. } = *attended;
    let mut scores = vec![0.0_f32; keys.len() / channels];
    for (query, result) in queries.chunks_exact(channels).zip(results.chunks_exact_mut(channels)) {
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(channels)) {
            let mut sums = [0.0_f32; 16];
            let (query, query_rest) = query.as_chunks::<16>();
            let (key, key_rest) = key.as_chunks::<16>();
            for (query, key) in query.iter().zip(key) {
                for ((sum, query), key) in sums.iter_mut().zip(query).zip(key) {
                    *sum += query * key;
                }
            }
            let rest: f32 = query_rest.iter().zip(key_rest).map(|(query, key)| query * key).sum();
            *score = (sums.iter().sum::<f32>() + rest) * scale;
        }
        softmax(&mut scores);
        result.fill(0.0);
        for (weight, value) in scores.iter().zip(values.chunks_exact(channels)) {
            for (result, value) in result.iter_mut().zip(value) {
                *result += weight * value;
            }
        }
    }
}

/// Softmax without a mask: e^score, divided by the sum of all.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma", "aarch64+neon"))]
fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    // several partial sums are faster and more exact than one
    let mut sums = [0.0_f32; 16];
    let (blocks, rest) = scores.as_chunks::<16>();
    for block in blocks {
        for (sum, score) in sums.iter_mut().zip(block) {
            *sum += score;
        }
    }
    let total = sums.iter().sum::<f32>() + rest.iter().sum::<f32>();
    for score in scores {
        *score /= total;
    }
}

/// Rotates the first half of each head's channels against the second, by the row of the tables that belongs to the token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RotaryEmbedding;

impl Kernel for RotaryEmbedding {
    fn name(&self) -> StaticName {
        "RotaryEmbedding".into()
    }

    fn result_types(&self, operands: &[ValueType]) -> TractResult<TVec<ValueType>> {
        let [heads, rows, cos, sin] = operands else {
            bail!("RotaryEmbedding takes 4 operands, and there are {}", operands.len())
        };
        for (operand, element, rank) in [
            (heads, f32::datum_type(), 3),
            (rows, i64::datum_type(), 2),
            (cos, f32::datum_type(), 2),
            (sin, f32::datum_type(), 2),
        ] {
            ensure!(
                operand.0 == element && operand.1.len() == rank,
                "an operand of RotaryEmbedding is {operand:?}, expected {rank} axes of {element:?}"
            );
        }
        Ok(tvec![heads.clone()])
    }

    fn compute(&self, _context: &EvalContext<'_>, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Ok([heads, rows, cos, sin]) = <[TValue; 4]>::try_from(operands.into_vec()) else {
            bail!("RotaryEmbedding takes 4 operands")
        };
        let [batch, sequence, width] = *heads.shape() else { bail!("heads are {:?}", heads.shape()) };
        let [table_rows, half] = *cos.shape() else { bail!("a table is {:?}", cos.shape()) };
        ensure!(
            half > 0 && width > 0 && width % (2 * half) == 0 && sin.shape() == cos.shape(),
            "tables {:?} and {:?} do not fit heads {:?}",
            cos.shape(),
            sin.shape(),
            heads.shape()
        );
        ensure!(
            rows.shape() == [batch, sequence],
            "rows {:?} of tokens {:?}",
            rows.shape(),
            [batch, sequence]
        );
        let mut rotated = heads.into_tensor();
        {
            let (rows, cos, sin) =
                (rows.try_as_plain_ram()?, cos.try_as_plain_ram()?, sin.try_as_plain_ram()?);
            let (rows, cos, sin) = (rows.as_slice::<i64>()?, cos.as_slice::<f32>()?, sin.as_slice::<f32>()?);
            let mut values = rotated.try_as_plain_ram_mut()?;
            for (row, token) in rows.iter().zip(values.as_slice_mut::<f32>()?.chunks_exact_mut(width)) {
                let row = usize::try_from(*row)?;
                ensure!(row < table_rows, "token at place {row}, and the tables have {table_rows}");
                let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
                for head in token.chunks_exact_mut(2 * half) {
                    let (first, second) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        }
        Ok(tvec![rotated.into_tvalue()])
    }
}

#[cfg(test)]
mod tests;
