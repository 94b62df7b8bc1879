//! Converts the mapped bytes of a checkpoint to the bytes of the data file, in independent chunks.

mod packed;

use jetmoe_checkpoint::{Checkpoint, TensorView, convert_to_f32};
use jetmoe_format::{ElementType, Encoding, Scheme};
use jetmoe_quantize::{Rounding, quantize_row};

use self::packed::panels_per_chunk;
use crate::{Error, Result, Weight};

/// Precomputed codes, scales and zero points of a matrix `[outputs, inputs]`, row by row, such as those of GPTQ.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedRows {
    /// One byte a weight, `[outputs, inputs]`.
    pub codes: Vec<u8>,
    /// `[outputs, groups]`
    pub scales: Vec<f32>,
    /// `[outputs, groups]`
    pub zero_points: Vec<u8>,
}

/// Source of the codes of quantized weights.
pub trait Quantizer: Sync {
    /// How the scale of a group is chosen for a weight without precomputed codes.
    fn rounding(&self) -> Rounding;

    /// The precomputed codes of a weight, if there are any.
    ///
    /// # Errors
    /// An error of the file that holds them.
    fn precomputed(&self, weight: &Weight) -> Result<Option<QuantizedRows>>;
}

/// Quantizes every weight by itself.
impl Quantizer for Rounding {
    fn rounding(&self) -> Rounding {
        *self
    }

    fn precomputed(&self, _weight: &Weight) -> Result<Option<QuantizedRows>> {
        Ok(None)
    }
}

/// One matrix of a weight, or a whole weight that is not a matrix.
pub(crate) struct Source<'a> {
    weight: &'a Weight,
    tensor: TensorView<'a>,
    order: Order,
    rounding: Rounding,
    precomputed: Option<QuantizedRows>,
}

/// A chunk of a weight. The `elements` of all chunks in order are the weight's first tensor; `scales` and `zero_points`
/// are the other tensors.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) elements: Vec<u8>,
    pub(crate) scales: Vec<u8>,
    /// One byte each, even if two share a byte in the file.
    pub(crate) zero_points: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    AsStored,
    /// Size of the stored matrix, which is transposed.
    Transposed {
        rows: usize,
        columns: usize,
    },
}

/// Elements of a chunk, so that memory does not grow with the model.
const CHUNK: usize = 1 << 18;

/// Elements of a quantized chunk in stored order.
const QUANTIZED_CHUNK: usize = 1 << 20;

/// A part of a row that begins with a group.
#[derive(Debug, Clone, Copy)]
struct RowPart {
    row: usize,
    /// Columns of the whole matrix.
    columns: usize,
    /// The first column.
    first: usize,
}

/// Columns of a quantized chunk, a multiple of every group size, and enough of each stored row to read at full speed.
const QUANTIZED_BAND: usize = 256;

impl<'a> Source<'a> {
    /// # Errors
    /// A tensor that the checkpoint does not have in this shape.
    pub(crate) fn new(
        weight: &'a Weight,
        checkpoint: &'a Checkpoint,
        quantizer: &'a dyn Quantizer,
    ) -> Result<Self> {
        let tensor = weight.view(checkpoint)?;
        let order = match tensor.shape {
            [rows, columns] if weight.transposed => Order::Transposed { rows: *rows, columns: *columns },
            _ => Order::AsStored,
        };
        let precomputed = if weight.scheme().is_some() { quantizer.precomputed(weight)? } else { None };
        Ok(Source { weight, tensor, order, rounding: quantizer.rounding(), precomputed })
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> usize {
        match self.order {
            Order::AsStored => match self.weight.encoding {
                Encoding::Float(_) => self.elements().div_ceil(CHUNK),
                Encoding::Grouped(..) => self.rows().div_ceil(self.rows_per_chunk()),
                Encoding::Packed(layout) => layout.panels().div_ceil(panels_per_chunk(&layout)),
            },
            Order::Transposed { rows, columns } => columns.div_ceil(self.band(rows)),
        }
    }

    /// Converts the `index`-th chunk.
    ///
    /// # Errors
    /// A weight that its encoding cannot hold.
    pub(crate) fn chunk(&self, index: usize) -> Result<Chunk> {
        let float = |elements| Chunk { elements, ..Chunk::default() };
        match (self.weight.encoding, self.order) {
            (Encoding::Float(element), Order::AsStored) => self.run(index, element).map(float),
            (Encoding::Float(element), Order::Transposed { rows, columns }) => {
                self.exchanged(index, rows, columns, element).map(float)
            }
            (Encoding::Grouped(scheme, _), Order::Transposed { rows, columns }) => {
                self.quantized_columns(index, rows, columns, &scheme)
            }
            (Encoding::Grouped(scheme, _), Order::AsStored) => self.quantized_rows(index, &scheme),
            (Encoding::Packed(layout), _) => self.panels(index, &layout),
        }
    }

    fn elements(&self) -> usize {
        self.tensor.bytes.len() / self.tensor.dtype.size()
    }

    /// Columns of a transposed matrix per chunk.
    fn band(&self, rows: usize) -> usize {
        match self.weight.encoding {
            Encoding::Float(_) => (CHUNK / rows.max(1)).max(1),
            Encoding::Grouped(..) | Encoding::Packed(_) => QUANTIZED_BAND,
        }
    }

    /// `count` elements in the stored order.
    fn read(&self, first: usize, values: &mut [f32]) {
        let size = self.tensor.dtype.size();
        let bytes = &self.tensor.bytes[first * size..(first + values.len()) * size];
        convert_to_f32(self.tensor.dtype, bytes, values);
    }

    /// A run of elements in the stored order.
    fn run(&self, index: usize, element: ElementType) -> Result<Vec<u8>> {
        let first = index * CHUNK;
        let mut values = vec![0.0; CHUNK.min(self.elements() - first)];
        self.read(first, &mut values);
        element.encode(&values).map_err(|place| self.not_representable(first + place, values[place], element))
    }

    /// Transposes a band of columns: a short contiguous run of every stored row becomes a column of the result.
    fn exchanged(&self, index: usize, rows: usize, columns: usize, element: ElementType) -> Result<Vec<u8>> {
        let first = index * self.band(rows);
        let width = self.band(rows).min(columns - first);
        let mut run = vec![0.0; width];
        let mut result = vec![0.0; width * rows];
        for row in 0..rows {
            self.read(row * columns + first, &mut run);
            for (column, value) in run.iter().enumerate() {
                result[column * rows + row] = *value;
            }
        }
        element.encode(&result).map_err(|place| {
            let (column, row) = (place / rows, place % rows);
            self.not_representable(row * columns + first + column, result[place], element)
        })
    }

    /// A band of columns, quantized: whole groups of every stored row.
    fn quantized_columns(&self, index: usize, rows: usize, columns: usize, scheme: &Scheme) -> Result<Chunk> {
        // rows whose codes are transposed at a time, so that writes stay close together
        const TILE: usize = 64;

        let first = index * QUANTIZED_BAND;
        let width = QUANTIZED_BAND.min(columns - first);
        let groups = scheme.groups(width);
        let mut codes = vec![0_u8; width * rows];
        let mut scales = vec![0.0_f32; groups * rows];
        let mut zero_points = vec![0_u8; groups * rows];

        let mut weights = vec![0.0; width];
        let mut tile_codes = vec![0_u8; TILE * width];
        let mut row_scales = vec![0.0; groups];
        let mut row_zeros = vec![0_u8; groups];
        for tile in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - tile);
            for (row, row_codes) in (tile..tile + height).zip(tile_codes.chunks_exact_mut(width)) {
                let place = RowPart { row, columns, first };
                self.quantize(scheme, place, &mut weights, row_codes, &mut row_scales, &mut row_zeros)?;
                for group in 0..groups {
                    scales[group * rows + row] = row_scales[group];
                    zero_points[group * rows + row] = row_zeros[group];
                }
            }
            for column in 0..width {
                let target = &mut codes[column * rows + tile..][..height];
                for (row, code) in target.iter_mut().enumerate() {
                    *code = tile_codes[row * width + column];
                }
            }
        }
        // the band is even wide, unless it is the last, so no byte is shared with the next
        let (elements, scales) = (scheme.format.pack(&codes), scheme.encode_scales(&scales));
        if !scheme.zero_points {
            zero_points.clear();
        }
        Ok(Chunk { elements, scales, zero_points })
    }

    /// Some rows, quantized, in the order they are stored. Codes have no sign, and the last group of a row is padded
    /// with zeros.
    fn quantized_rows(&self, index: usize, scheme: &Scheme) -> Result<Chunk> {
        let columns = self.tensor.shape.last().copied().unwrap_or(0);
        let groups = scheme.groups(columns);
        // the middle of the range, where signed codes have 0
        let middle = if scheme.zero_points { 0 } else { scheme.format.default_zero_point() };
        let mut weights = vec![0.0; columns];
        let mut codes = vec![middle; groups * scheme.group_size];
        let (mut scales, mut zero_points) = (vec![0.0; groups], vec![0; groups]);
        let mut chunk = Chunk::default();
        let first = index * self.rows_per_chunk();
        for row in first..(first + self.rows_per_chunk()).min(self.rows()) {
            let place = RowPart { row, columns, first: 0 };
            let row_codes = &mut codes[..columns];
            self.quantize(scheme, place, &mut weights, row_codes, &mut scales, &mut zero_points)?;
            row_codes.iter_mut().for_each(|code| *code ^= middle);
            chunk.scales.extend(scheme.encode_scales(&scales));
            chunk.elements.extend(scheme.format.pack(&codes));
            if scheme.zero_points {
                chunk.zero_points.extend(scheme.format.pack(&zero_points));
            }
        }
        Ok(chunk)
    }

    /// Codes, scales and zero points of whole groups of a row.
    fn quantize(
        &self,
        scheme: &Scheme,
        place: RowPart,
        weights: &mut [f32],
        codes: &mut [u8],
        scales: &mut [f32],
        zero_points: &mut [u8],
    ) -> Result<()> {
        let start = place.row * place.columns + place.first;
        if let Some(found) = &self.precomputed {
            let group = place.row * scheme.groups(place.columns) + place.first / scheme.group_size;
            codes.copy_from_slice(&found.codes[start..][..codes.len()]);
            scales.copy_from_slice(&found.scales[group..][..scales.len()]);
            zero_points.copy_from_slice(&found.zero_points[group..][..zero_points.len()]);
            return Ok(());
        }
        self.read(start, weights);
        quantize_row(scheme, self.rounding, weights, codes, scales, zero_points)
            .map_err(|error| self.not_quantizable(place.row, place.first, error))
    }

    /// Rows of a stored matrix.
    fn rows(&self) -> usize {
        self.tensor.shape.first().copied().unwrap_or(0)
    }

    fn rows_per_chunk(&self) -> usize {
        (QUANTIZED_CHUNK / self.tensor.shape.last().copied().unwrap_or(1).max(1)).max(1)
    }

    /// The place of a stored element in the checkpoint's tensor.
    fn place(&self, element: usize) -> Vec<usize> {
        let mut rest = element;
        let mut place: Vec<usize> = self
            .tensor
            .shape
            .iter()
            .rev()
            .map(|size| {
                let index = rest % size.max(&1);
                rest /= size.max(&1);
                index
            })
            .collect();
        place.extend(self.weight.expert);
        place.reverse();
        place
    }

    fn not_representable(&self, element: usize, value: f32, needed: ElementType) -> Error {
        let (tensor, place) = (self.weight.tensor.clone(), self.place(element));
        Error::NotRepresentable { tensor, place, value, element: needed }
    }

    fn not_quantizable(&self, row: usize, first: usize, source: jetmoe_quantize::Error) -> Error {
        let row = self.weight.expert.into_iter().chain([row]).collect();
        Error::Quantize { tensor: self.weight.tensor.clone(), row, source: source.offset_by(first) }
    }
}
