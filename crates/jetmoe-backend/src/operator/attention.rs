//! The operator `Attention`, which updates a key/value cache.

use jetmoe_format::{CacheFormat, Operand, SEQUENCE_NUMBERS};
use jetmoe_kernels::{Attention, Cache, ExecContext, Sequences, attention, decode_cache_row};
use ndarray::{ArrayD, IxDyn};

use super::{Elements, OperandValue, Operator};
use crate::{Error, Result};

/// A node of `Attention` with the operands of one step except the cache, which fit it.
#[derive(Debug, Clone)]
pub struct AttentionStep<'a> {
    inputs: Attention<'a>,
    shape: Vec<usize>,
}

/// Keys or values of all sequences, `[batch, kv_heads, capacity, row bytes]`.
#[derive(Debug)]
pub struct CacheTensor<'a> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its rows.
    pub bytes: &'a mut [u8],
}

impl Operator {
    /// Whether it updates a cache, so that [`Operator::bind_attention`] binds it.
    pub fn updates_cache(&self) -> bool {
        self.node.heads.is_some()
    }

    /// Checks the operands of a step of `Attention`, in the order of the schema; those of the cache may be left out.
    ///
    /// # Errors
    /// [`Error::Operator`] for an operand that is missing, of another type or of another size, and for another operator.
    pub fn bind_attention<'a>(&self, operands: &[OperandValue<'a>]) -> Result<AttentionStep<'a>> {
        let Some(heads) = self.node.heads else {
            let problem = "it updates no cache".to_owned();
            return Err(Error::Operator { operator: self.node.operator.to_string(), problem });
        };
        let floats = |operand| match self.find(operands, operand)?.elements {
            Elements::Float32(elements) => Ok(elements),
            _ => Err(self.wrong(operand, "is not float32")),
        };
        let shape = |operand| Ok::<&[usize], Error>(&self.find(operands, operand)?.shape);
        let integers = |operand| match (self.find(operands, operand)?.elements, shape(operand)?) {
            (Elements::Int64(elements), [rows, columns]) => Ok((elements, [*rows, *columns])),
            (Elements::Int64(_), shape) => Err(self.wrong(operand, format_args!("has the shape {shape:?}"))),
            _ => Err(self.wrong(operand, "is not int64")),
        };
        let (mask, [batch, _]) = integers(Operand::AttentionMask)?;
        let sequences = match integers(Operand::Sequences)? {
            ([], _) => Sequences::Masked { batch, mask },
            (list, [_, SEQUENCE_NUMBERS]) => Sequences::Listed(list),
            (_, shape) => {
                return Err(self.wrong(Operand::Sequences, format_args!("has the shape {shape:?}")));
            }
        };
        let queries = shape(Operand::Queries)?;
        let channels = match *queries {
            [_, width] if width.is_multiple_of(heads.kv_heads) => width / heads.kv_heads,
            _ => {
                let problem = format_args!("has the shape {queries:?} for {} key heads", heads.kv_heads);
                return Err(self.wrong(Operand::Queries, problem));
            }
        };
        let inputs = Attention {
            format: heads.cache,
            kv_heads: heads.kv_heads,
            channels,
            queries: floats(Operand::Queries)?,
            keys_and_values: floats(Operand::KeysAndValues)?,
            cos: floats(Operand::Cos)?,
            sin: floats(Operand::Sin)?,
            sequences,
        };
        Ok(AttentionStep { inputs, shape: queries.to_vec() })
    }
}

impl AttentionStep<'_> {
    /// Shape of the result.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Computes the result, row-major, and updates the cache.
    ///
    /// # Errors
    /// [`Error::Operator`] and [`Error::Kernels`] for a cache of other sizes, without capacity for the tokens, or a result of another
    /// size. The cache is then unchanged.
    pub fn compute(
        &self,
        context: ExecContext<'_>,
        [keys, values]: [CacheTensor<'_>; 2],
        result: &mut [f32],
    ) -> Result<()> {
        let Attention { format, kv_heads, channels, sequences, .. } = self.inputs;
        let fits = |cache: &CacheTensor<'_>| match *cache.shape {
            [rows, heads, _, row_bytes] => {
                let has_rows = match sequences {
                    Sequences::Masked { batch, .. } => rows == batch,
                    Sequences::Listed(_) => true,
                };
                has_rows && heads == kv_heads && Some(row_bytes) == format.row_bytes(channels)
            }
            _ => false,
        };
        if !fits(&keys) || keys.shape != values.shape {
            let sequences = match sequences {
                Sequences::Masked { batch, .. } => format!("{batch} sequences"),
                Sequences::Listed(_) => "listed sequences".to_owned(),
            };
            let problem = format!(
                "{sequences} with {kv_heads} key heads of {channels} channels as {format} do not continue a cache of {:?} and {:?}",
                keys.shape, values.shape
            );
            return Err(Error::Operator { operator: "Attention".to_owned(), problem });
        }
        let (batch, capacity) = (keys.shape[0], keys.shape[2]);
        let mut cache = Cache { keys: keys.bytes, values: values.bytes, batch, capacity };
        Ok(attention(context, &self.inputs, &mut cache, result)?)
    }
}

/// The keys or values of a cache `[batch, kv_heads, capacity, row bytes]`: `[batch, kv_heads, capacity, channels]`.
///
/// # Errors
/// [`Error::Operator`] for a shape without whole rows of the format.
pub fn decode_cache(format: CacheFormat, shape: &[usize], bytes: &[u8]) -> Result<ArrayD<f32>> {
    let wrong = || {
        let problem = format!("a cache of the shape {shape:?} has no rows as {format}");
        Error::Operator { operator: "Attention".to_owned(), problem }
    };
    let [outer @ .., row_bytes] = shape else { return Err(wrong()) };
    let channels = format.channels(*row_bytes).filter(|channels| *channels > 0).ok_or_else(wrong)?;
    let mut numbers = vec![0.0; bytes.len() / row_bytes * channels];
    for (row, numbers) in bytes.chunks_exact(*row_bytes).zip(numbers.chunks_exact_mut(channels)) {
        decode_cache_row(format, row, numbers);
    }
    let shape = [outer, &[channels]].concat();
    ArrayD::from_shape_vec(IxDyn(&shape), numbers).map_err(|_| wrong())
}
