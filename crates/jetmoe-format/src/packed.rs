//! Packed weights: panels of 32 rows, each contiguous along the inputs, so that every instruction set reads it in order.
//!
//! A weight is one matrix `[outputs, inputs]` per expert. Its rows are cut into *panels* of [`PANEL_ROWS`], its columns
//! into *blocks* of [`BLOCK_INPUTS`]; the last panel and block are padded with zeros. A block of a panel holds, for 4-bit codes,
//! four groups of 128 bytes: byte `4 · row + j` of group `i` has the code of column `8 i + j` in its lower half and that
//! of column `8 i + 4 + j` in its upper half. For 8-bit codes it has eight such groups, of column `4 i + j`, and for
//! bfloat16 sixteen, of columns `2 i` and `2 i + 1`. So any 16, 32 or 64 bytes of a group are 4, 8 or 16 rows, each with
//! the operand of one dot product instruction; matrix instructions take their right operand in this form too.

use std::fmt;
use std::ops::Range;

use half::{bf16, f16};

use crate::{ElementType, Error, Result, Scheme, Tensors, WeightFormat};

/// Rows of a panel.
pub const PANEL_ROWS: usize = 32;

/// Columns of a block.
pub const BLOCK_INPUTS: usize = 32;

/// Order in which the rows of a matrix are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowOrder {
    /// As they are stored.
    AsStored,
    /// The matrix is two of equal height, one above the other, and a panel has 16 rows of the first followed by the same
    /// 16 of the second: a gated activation takes both from one panel.
    Halves,
}

/// The type of a packed weight's scales: float16, or float32 where they must stay exact.
pub trait Scale: Copy + Default + fmt::Debug + Send + Sync + 'static {
    /// The type.
    const ELEMENT: ElementType;

    /// Its value.
    fn to_f32(self) -> f32;
}

impl Scale for f16 {
    const ELEMENT: ElementType = ElementType::Float16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Scale for f32 {
    const ELEMENT: ElementType = ElementType::Float32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// Sizes and scheme of a packed weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedLayout {
    /// Matrices.
    pub experts: usize,
    /// Rows of each.
    pub outputs: usize,
    /// Columns of each.
    pub inputs: usize,
    /// How the elements are stored.
    pub scheme: Scheme,
    /// Order of the rows.
    pub order: RowOrder,
}

impl PackedLayout {
    /// The scheme of packed elements, with float16 scales.
    ///
    /// # Errors
    /// A width or a group size without kernels. The group size is ignored for a format without groups.
    pub fn scheme(bits: i64, group_size: i64, zero_points: bool) -> Result<Scheme> {
        let format = WeightFormat::packable(bits)?;
        let size = usize::try_from(group_size).unwrap_or(0);
        if format.is_quantized() && !Scheme::GROUP_SIZES.contains(&size) {
            return Err(Error::GroupSize { found: group_size });
        }
        Ok(Scheme { format, group_size: size, zero_points, scales: ElementType::Float16 })
    }

    /// Panels of a matrix.
    pub fn panels(&self) -> usize {
        match self.order {
            RowOrder::AsStored => self.outputs.div_ceil(PANEL_ROWS),
            RowOrder::Halves => (self.outputs / 2).div_ceil(PANEL_ROWS / 2),
        }
    }

    /// Blocks of a panel.
    pub fn blocks(&self) -> usize {
        self.inputs.div_ceil(BLOCK_INPUTS)
    }

    /// Weights that share a scale; `None` where there are no scales.
    pub fn group_size(&self) -> Option<usize> {
        self.scheme.format.is_quantized().then_some(self.scheme.group_size)
    }

    /// Groups of a row of whole blocks, 0 where there are no scales.
    pub fn groups(&self) -> usize {
        let columns = self.blocks() * BLOCK_INPUTS;
        self.group_size().map_or(0, |size| columns.div_ceil(size))
    }

    /// Bytes of a block of a panel.
    pub const fn block_bytes(&self) -> usize {
        PANEL_ROWS * BLOCK_INPUTS * self.scheme.format.bits() / 8
    }

    /// Bytes of a panel's elements.
    pub fn panel_bytes(&self) -> usize {
        self.blocks() * self.block_bytes()
    }

    /// Shape of the tensor of elements, in bytes: `[experts, panels, blocks, bytes of a block]`.
    pub fn codes_shape(&self) -> [usize; 4] {
        [self.experts, self.panels(), self.blocks(), self.block_bytes()]
    }

    /// Shape of scales and zero points: `[experts, panels, groups, rows of a panel]`.
    pub fn scales_shape(&self) -> [usize; 4] {
        [self.experts, self.panels(), self.groups(), PANEL_ROWS]
    }

    /// The row of a matrix that is packed at a position of a panel; `None` for padding.
    pub fn row(&self, panel: usize, position: usize) -> Option<usize> {
        match self.order {
            RowOrder::AsStored => Some(panel * PANEL_ROWS + position).filter(|row| *row < self.outputs),
            RowOrder::Halves => {
                let (half, height) = (self.outputs / 2, PANEL_ROWS / 2);
                let within = panel * height + position % height;
                (within < half).then_some(within + position / height * half)
            }
        }
    }

    /// Packs the codes of a row, one byte each and without a sign, at a position of a panel's bytes. Columns that the row
    /// does not have are left as they are.
    pub fn pack_codes(&self, panel: &mut [u8], position: usize, codes: &[u8]) {
        for (block, codes) in panel.chunks_exact_mut(self.block_bytes()).zip(codes.chunks(BLOCK_INPUTS)) {
            for (column, code) in codes.iter().enumerate() {
                let lane = 4 * position + column % 4;
                if self.scheme.format.bits() == 4 {
                    let byte = &mut block[column / 8 * 128 + lane];
                    *byte = match column % 8 {
                        0..4 => *byte & 0xF0 | code & 0x0F,
                        _ => *byte & 0x0F | code << 4,
                    };
                } else {
                    block[column / 4 * 128 + lane] = *code;
                }
            }
        }
    }

    /// Packs the codes of consecutive panels of a matrix that is stored transposed, `[inputs, outputs]`, as
    /// `DequantizeLinear` reads it: in row order, two 4-bit codes per byte, the first in its low half. Signed codes are moved
    /// by half their range. Columns and rows that the matrix does not have are left as they are.
    ///
    /// Several panels at once are faster: they take neighbouring bytes of the stored rows.
    ///
    /// # Errors
    /// [`Error::Length`] for stored codes of another size.
    pub fn pack_transposed(
        &self,
        panels: &mut [u8],
        first_panel: usize,
        stored: &[u8],
        is_signed: bool,
    ) -> Result<()> {
        let bits = self.scheme.format.bits();
        length("the codes", stored.len(), (self.inputs * self.outputs * bits).div_ceil(8))?;
        // Flipping the highest bit of a signed code adds half the range.
        let sign_bits = match (is_signed, bits) {
            (false, _) => 0,
            (true, 4) => 0x88,
            (true, _) => 0x80,
        };
        for block in 0..self.blocks() {
            for (index, panel) in panels.chunks_exact_mut(self.panel_bytes()).enumerate() {
                let first = (first_panel + index) * PANEL_ROWS;
                let width = PANEL_ROWS.min(self.outputs.saturating_sub(first));
                let mut codes = [[0; PANEL_ROWS]; BLOCK_INPUTS];
                for (codes, input) in codes.iter_mut().zip(block * BLOCK_INPUTS..self.inputs) {
                    let place = input * self.outputs + first;
                    if bits == 4 {
                        unpack_nibbles(stored, place, &mut codes[..width]);
                    } else {
                        codes[..width].copy_from_slice(&stored[place..][..width]);
                    }
                }
                let bytes = self.block_bytes();
                pack_block(&mut panel[block * bytes..][..bytes], &codes, bits, sign_bits);
            }
        }
        Ok(())
    }

    /// Packs the bytes of a row of bfloat16 elements at a position of a panel's bytes.
    pub fn pack_elements(&self, panel: &mut [u8], position: usize, elements: &[u8]) {
        for (block, elements) in
            panel.chunks_exact_mut(self.block_bytes()).zip(elements.chunks(2 * BLOCK_INPUTS))
        {
            for (column, element) in elements.as_chunks::<2>().0.iter().enumerate() {
                let first = column / 2 * 128 + position * 4 + column % 2 * 2;
                block[first..first + 2].copy_from_slice(element);
            }
        }
    }

    /// The code at a column of a row, from a panel's bytes.
    #[inline]
    pub fn code(&self, panel: &[u8], position: usize, column: usize) -> u8 {
        let (block, within) = (column / BLOCK_INPUTS, column % BLOCK_INPUTS);
        let block = &panel[block * self.block_bytes()..];
        let lane = 4 * position + within % 4;
        match self.scheme.format.bits() {
            4 => block[within / 8 * 128 + lane] >> (within % 8 / 4 * 4) & 0x0F,
            _ => block[within / 4 * 128 + lane],
        }
    }

    /// The bfloat16 element at a column of a row, from a panel's bytes.
    fn element(panel: &[u8], position: usize, column: usize) -> bf16 {
        let first = column / 2 * 128 + position * 4 + column % 2 * 2;
        bf16::from_le_bytes([panel[first], panel[first + 1]])
    }

    /// Refuses sizes that no product has. Those that remain can be padded and multiplied without checks.
    pub(crate) fn check(&self) -> Result<()> {
        let PackedLayout { experts, outputs, inputs, scheme, .. } = *self;
        PackedLayout::scheme(scheme.format.bits() as i64, scheme.group_size as i64, scheme.zero_points)?;
        let elements = experts.checked_mul(outputs).and_then(|rows| rows.checked_mul(inputs));
        // rows and columns are padded to at most this many times as many, of two bytes
        let bytes = elements.and_then(|count| count.checked_mul(2 * PANEL_ROWS * BLOCK_INPUTS));
        let refuse = |problem| Err(Error::Size { experts, outputs, inputs, problem });
        match self.order {
            _ if elements == Some(0) => refuse("has no elements"),
            _ if bytes.is_none() => refuse("does not fit in memory"),
            RowOrder::Halves if outputs % 2 != 0 => refuse("has no halves"),
            _ => Ok(()),
        }
    }
}

/// Unpacks 4-bit codes from `first` on: the first of two codes is in the low half of a byte.
fn unpack_nibbles(stored: &[u8], first: usize, codes: &mut [u8]) {
    let mut codes = codes;
    let mut stored = &stored[first / 2..];
    if first % 2 == 1 && !codes.is_empty() {
        // a row with an odd number of codes ends inside a byte
        codes[0] = stored[0] >> 4;
        (codes, stored) = (&mut codes[1..], &stored[1..]);
    }
    let (pairs, last) = codes.as_chunks_mut::<2>();
    for ([low, high], byte) in pairs.iter_mut().zip(stored) {
        (*low, *high) = (byte & 0x0F, byte >> 4);
    }
    if let [last] = last {
        *last = stored[pairs.len()] & 0x0F;
    }
}

/// Codes of a block, `[columns, rows]`, one byte each.
type BlockCodes = [[u8; PANEL_ROWS]; BLOCK_INPUTS];

/// Packs the codes of a block. `sign_bits` are flipped in every byte.
fn pack_block(bytes: &mut [u8], codes: &BlockCodes, bits: usize, sign_bits: u8) {
    let (lane_groups, _) = bytes.as_chunks_mut::<{ 4 * PANEL_ROWS }>();
    if bits == 4 {
        for (lanes, columns) in lane_groups.iter_mut().zip(codes.as_chunks::<8>().0) {
            pack_lanes(lanes, sign_bits, |column, row| columns[column][row] | columns[4 + column][row] << 4);
        }
    } else {
        for (lanes, columns) in lane_groups.iter_mut().zip(codes.as_chunks::<4>().0) {
            pack_lanes(lanes, sign_bits, |column, row| columns[column][row]);
        }
    }
}

/// Packs one lane per row, each of four bytes.
#[inline(always)]
fn pack_lanes(lanes: &mut [u8; 4 * PANEL_ROWS], sign_bits: u8, byte: impl Fn(usize, usize) -> u8) {
    for (row, lane) in lanes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // A lane is one number, so that the compiler vectorizes the loop over the rows.
        let byte = |column| u32::from(byte(column, row) ^ sign_bits);
        *lane = (byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24).to_le_bytes();
    }
}

/// A packed weight, borrowed from where its bytes are: mapped from a file, or in memory.
#[derive(Debug, Clone, Copy)]
pub struct PackedWeight<'a, S = f16> {
    layout: PackedLayout,
    codes: &'a [u8],
    scales: &'a [S],
    zero_points: Option<&'a [u8]>,
}

/// One panel of a weight.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a, S = f16> {
    /// Consecutive blocks.
    pub codes: &'a [u8],
    /// `[groups, 32]`
    pub scales: &'a [S],
    /// `[groups, 32]`
    pub zero_points: Option<&'a [u8]>,
}

impl<'a, S: Scale> PackedWeight<'a, S> {
    /// A weight of these sizes: its elements as bytes, `[experts, panels, blocks, bytes of a block]`, and scales and
    /// perhaps zero points, `[experts, panels, groups, 32]`, where its format has them. Whether there are zero points, and
    /// the type of the scales, follow from the tensors, not from the layout.
    ///
    /// # Errors
    /// Tensors of other sizes than the layout requires.
    pub fn new(
        mut layout: PackedLayout,
        codes: &'a [u8],
        scales: Option<&'a [S]>,
        zero_points: Option<&'a [u8]>,
    ) -> Result<Self> {
        layout.scheme.zero_points = zero_points.is_some();
        layout.scheme.scales = S::ELEMENT;
        layout.check()?;
        let scales = scales.unwrap_or_default();
        length("the weight", codes.len(), layout.codes_shape().iter().product())?;
        let groups = layout.scales_shape().iter().product();
        length("the scales", scales.len(), groups)?;
        if let Some(zero_points) = zero_points {
            length("the zero points", zero_points.len(), groups)?;
        }
        Ok(PackedWeight { layout, codes, scales, zero_points })
    }

    /// [`PackedWeight::new`] with the number of experts that follows from the length of the codes.
    ///
    /// # Errors
    /// As there.
    pub fn with_all_experts(
        layout: PackedLayout,
        codes: &'a [u8],
        scales: Option<&'a [S]>,
        zero_points: Option<&'a [u8]>,
    ) -> Result<Self> {
        let one = PackedLayout { experts: 1, ..layout };
        one.check()?;
        let experts = codes.len() / (one.panels() * one.panel_bytes());
        PackedWeight::new(PackedLayout { experts, ..layout }, codes, scales, zero_points)
    }

    /// Its sizes.
    pub fn layout(&self) -> &PackedLayout {
        &self.layout
    }

    /// Bytes of one expert's matrix, scales and zero points included.
    pub fn expert_bytes(&self) -> usize {
        let all = self.codes.len() + size_of_val(self.scales) + self.zero_points.map_or(0, <[u8]>::len);
        all / self.layout.experts
    }

    /// A panel of an expert's matrix.
    #[inline]
    pub fn panel(&self, expert: usize, panel: usize) -> Panel<'a, S> {
        self.panels(expert, panel..panel + 1)
    }

    /// Consecutive panels of an expert's matrix, as one.
    #[inline]
    pub fn panels(&self, expert: usize, panels: Range<usize>) -> Panel<'a, S> {
        let (first, count) = (expert * self.layout.panels() + panels.start, panels.len());
        let (bytes, groups) = (self.layout.panel_bytes(), self.layout.groups() * PANEL_ROWS);
        Panel {
            codes: &self.codes[first * bytes..][..count * bytes],
            scales: &self.scales[first * groups..][..count * groups],
            zero_points: self.zero_points.map(|points| &points[first * groups..][..count * groups]),
        }
    }

    /// Dequantizes the elements at one position of a panel.
    pub fn dequantize_row(&self, expert: usize, panel: usize, position: usize, elements: &mut [f32]) {
        let (layout, panel) = (&self.layout, self.panel(expert, panel));
        let Some(group_size) = layout.group_size() else {
            for (column, element) in elements.iter_mut().enumerate() {
                *element = PackedLayout::element(panel.codes, position, column).to_f32();
            }
            return;
        };
        let default = layout.scheme.format.default_zero_point();
        for (column, element) in elements.iter_mut().enumerate() {
            let group = column / group_size * PANEL_ROWS + position;
            let zero_point = panel.zero_points.map_or(default, |points| points[group]);
            let code = i32::from(layout.code(panel.codes, position, column)) - i32::from(zero_point);
            *element = code as f32 * panel.scales[group].to_f32();
        }
    }

    /// All elements, `[experts, outputs, inputs]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let PackedLayout { experts, outputs, inputs, .. } = self.layout;
        let mut elements = vec![0.0; experts * outputs * inputs];
        for (expert, elements) in elements.chunks_exact_mut(outputs * inputs).enumerate() {
            for panel in 0..self.layout.panels() {
                for position in 0..PANEL_ROWS {
                    if let Some(row) = self.layout.row(panel, position) {
                        self.dequantize_row(expert, panel, position, &mut elements[row * inputs..][..inputs]);
                    }
                }
            }
        }
        elements
    }
}

/// Dequantizes a packed weight whose scales are bytes.
pub(crate) fn dequantize(layout: PackedLayout, tensors: &Tensors<'_>) -> Result<Vec<f32>> {
    let pairs = tensors.scales.as_chunks::<2>().0;
    let scales: Vec<f16> = pairs.iter().map(|pair| f16::from_le_bytes(*pair)).collect();
    let scales = layout.group_size().map(|_| scales.as_slice());
    Ok(PackedWeight::with_all_experts(layout, tensors.codes, scales, tensors.zero_points)?.dequantize())
}

pub(crate) fn length(tensor: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Length { tensor, found, expected }) }
}
