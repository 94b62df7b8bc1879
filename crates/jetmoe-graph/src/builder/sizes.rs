//! Sizes that are known only at run time, computed from the shapes of the graph's inputs.

use jetmoe_artifact::names::{
    BATCH_SIZE, CACHE_BATCH_SIZE, LOGITS_LENGTH, PAST_SEQUENCE_LENGTH, SEQUENCE_COUNT, SEQUENCE_LENGTH,
};
use jetmoe_artifact::{Axis, Profile};

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Error, Result, Shape};

/// Names of the sizes of [`Builder::piece_sizes`].
const PIECES: &str = "pieces";
const ROWS_PER_PIECE: &str = "rows_per_piece";

/// One entry of a size vector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// A number known now; 0 and -1 have `Reshape`'s meaning.
    Known(i64),
    /// A size that the running graph computes.
    Computed(Dimension),
}

/// The symbolic shape of a value of the contract.
pub(super) fn shape(axes: &[Axis]) -> Shape {
    Shape(axes.iter().map(|axis| dimension(*axis)).collect())
}

fn dimension(axis: Axis) -> Dimension {
    match axis {
        Axis::Fixed(size) => Dimension::from(size),
        Axis::BatchSize => Dimension::symbol(BATCH_SIZE),
        Axis::SequenceLength => Dimension::symbol(SEQUENCE_LENGTH),
        Axis::PastSequenceLength => Dimension::symbol(PAST_SEQUENCE_LENGTH),
        Axis::LogitsLength => Dimension::symbol(LOGITS_LENGTH),
        Axis::SequenceCount => Dimension::symbol(SEQUENCE_COUNT),
        Axis::CacheBatchSize => Dimension::symbol(CACHE_BATCH_SIZE),
        Axis::TotalSequenceLength => {
            &Dimension::symbol(PAST_SEQUENCE_LENGTH) + &Dimension::symbol(SEQUENCE_LENGTH)
        }
    }
}

impl Builder {
    /// A size as an int64 scalar, `[]`.
    pub(crate) fn size_scalar(&mut self, size: &Dimension) -> Result<Value> {
        match size.fixed() {
            Some(number) => Ok(self.integer(number)),
            None => {
                let vector = self.size(size)?;
                self.squeeze(&vector, 0)
            }
        }
    }

    /// How `slots` are divided into pieces of equal size, see `model/pieces.rs`: the number of pieces, and the rows of each.
    pub(crate) fn piece_sizes(
        &mut self,
        slots: &Dimension,
        experts: usize,
    ) -> Result<(Dimension, Dimension)> {
        let (pieces, rows) = (Dimension::symbol(PIECES), Self::rows_per_piece());
        if !self.sizes.contains_key(&pieces) {
            let slots = self.size(slots)?; // [1]
            let (number_of_pieces, rows_of_each) = self.in_sizes_scope(|builder| {
                let most = builder.integers(&[2 * experts as i64 - 1]);
                let (rounding, divisor) =
                    (builder.integers(&[experts as i64 - 1]), builder.integers(&[experts as i64]));
                let rounded = builder.add(&slots, &rounding)?;
                Ok((builder.minimum(&slots, &most)?, builder.div(&rounded, &divisor)?))
            })?;
            self.sizes.insert(pieces.clone(), number_of_pieces);
            self.sizes.insert(rows.clone(), rows_of_each);
        }
        Ok((pieces, rows))
    }

    /// The number of rows of each piece.
    pub(crate) fn rows_per_piece() -> Dimension {
        Dimension::symbol(ROWS_PER_PIECE)
    }

    /// The size of one axis of `operand` at run time, an int64 scalar, `[]`.
    pub(crate) fn size_of(&mut self, operand: &Value, axis: usize) -> Result<Value> {
        let size = self.axis_size(operand, axis);
        self.squeeze(&size, 0)
    }

    /// The number of columns of an int64 matrix `[rows, columns]`, for arithmetic with data, `[]`. In a graph for a GPU it is
    /// counted there: sizes are on the host, and would have to be copied.
    pub(crate) fn columns_of(&mut self, matrix: &Value) -> Result<Value> {
        if self.profile() != Profile::Gpu {
            return self.size_of(matrix, 1);
        }
        let ones = self.equal(matrix, matrix)?; // [rows, columns]
        let ones = self.cast(&ones, ElementType::Int64);
        let columns = self.sum(&ones, 1)?; // [rows]
        self.max(&columns, 0)
    }

    /// As [`Builder::size_of`], an int64 vector of one element, `[1]`.
    fn axis_size(&mut self, operand: &Value, axis: usize) -> Value {
        let axis = axis as i64;
        let attributes = vec![("start", Attribute::Integer(axis)), ("end", Attribute::Integer(axis + 1))];
        let shape = Shape(vec![Dimension::from(1_i64)]);
        self.node("Shape", &[operand], attributes, ElementType::Int64, shape)
    }

    /// The sizes of a shape as an int64 vector, `[rank]`.
    pub(super) fn size_vector(&mut self, shape: &Shape) -> Result<Value> {
        let parts = shape.0.iter().map(|size| match size.fixed() {
            Some(number) => Part::Known(number),
            None => Part::Computed(size.clone()),
        });
        self.join_parts(parts.collect())
    }

    /// `Reshape`'s second operand: 0 keeps the size of a leading axis, -1 infers a single unknown size, so that most
    /// reshapes need no computation. If several sizes are unknown, all are computed: tract cannot divide by a sum of
    /// symbols to infer one of them. It also misreads a 0 after an axis that changed.
    pub(super) fn reshape_target(&mut self, from: &Shape, to: &Shape) -> Result<Value> {
        let mut parts: Vec<Part> =
            to.0.iter()
                .enumerate()
                .map(|(index, size)| match size.fixed() {
                    Some(number) => Part::Known(number),
                    None if from.0.get(index) == Some(size) => Part::Known(0),
                    None => Part::Computed(size.clone()),
                })
                .collect();
        let inferred = |parts: &mut [Part], is_unknown: &dyn Fn(&Part) -> bool| {
            let mut unknown = parts.iter_mut().filter(|part| is_unknown(part));
            if let (Some(single), None) = (unknown.next(), unknown.next()) {
                *single = Part::Known(-1);
            }
        };
        inferred(&mut parts, &|part| matches!(part, Part::Computed(_)));
        // the number of logits to keep cannot be read from the shape of an input
        inferred(
            &mut parts,
            &|part| matches!(part, Part::Computed(size) if *size == Dimension::symbol(LOGITS_LENGTH)),
        );
        self.join_parts(parts)
    }

    fn join_parts(&mut self, parts: Vec<Part>) -> Result<Value> {
        if let Some(vector) = self.size_vectors.get(&parts) {
            return Ok(vector.clone());
        }
        let known: Option<Vec<i64>> = parts
            .iter()
            .map(|part| match part {
                Part::Known(number) => Some(*number),
                Part::Computed(_) => None,
            })
            .collect();
        if let Some(numbers) = known {
            return Ok(self.integers(&numbers));
        }
        let pieces = parts
            .iter()
            .map(|part| match part {
                Part::Known(number) => Ok(self.integers(&[*number])),
                Part::Computed(size) => self.size(size),
            })
            .collect::<Result<Vec<_>>>()?;
        let vector = self.in_sizes_scope(|builder| builder.concat(&pieces.iter().collect::<Vec<_>>(), 0))?;
        self.size_vectors.insert(parts, vector.clone());
        Ok(vector)
    }

    /// A size as an int64 vector of one element, `[1]`: sums and products over the shapes of inputs.
    fn size(&mut self, size: &Dimension) -> Result<Value> {
        if let Some(value) = self.sizes.get(size) {
            return Ok(value.clone());
        }
        let mut sum: Option<Value> = None;
        for (symbols, coefficient) in size.terms() {
            let mut product = (coefficient != 1 || symbols.is_empty()).then(|| self.integers(&[coefficient]));
            for symbol in symbols {
                let factor = self.symbol_size(symbol)?;
                product = Some(match product {
                    None => factor,
                    Some(product) => self.in_sizes_scope(|builder| builder.mul(&product, &factor))?,
                });
            }
            sum = match (sum, product) {
                (None, product) => product,
                (Some(sum), Some(product)) => {
                    Some(self.in_sizes_scope(|builder| builder.add(&sum, &product))?)
                }
                (sum, None) => sum,
            };
        }
        let value = match sum {
            Some(value) => value,
            None => self.integers(&[0]),
        };
        self.sizes.insert(size.clone(), value.clone());
        Ok(value)
    }

    /// The size of a symbol, read from the first input with that dimension.
    fn symbol_size(&mut self, symbol: &str) -> Result<Value> {
        let wanted = Dimension::symbol(symbol);
        if let Some(value) = self.sizes.get(&wanted) {
            return Ok(value.clone());
        }
        let found = self.graph.inputs.iter().find_map(|id| {
            let facts = &self.graph.values[*id];
            let axis = facts.shape.0.iter().position(|size| *size == wanted)?;
            Some((Value { id: *id, element: facts.element, shape: facts.shape.clone() }, axis))
        });
        let Some((input, axis)) = found else {
            return Err(Error::UnknownSize { node: self.place(), symbol: symbol.to_owned() });
        };
        let value = self.in_sizes_scope(|builder| Ok(builder.axis_size(&input, axis)))?;
        self.sizes.insert(wanted, value.clone());
        Ok(value)
    }

    /// Sizes are shared by the whole graph, so their nodes are outside the scope that first needs them.
    fn in_sizes_scope<T>(&mut self, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = std::mem::replace(&mut self.scopes, vec!["sizes".to_owned()]);
        let result = build(self);
        self.scopes = outer;
        result
    }
}
