//! How a weight lies in memory: panels of 32 rows, each contiguous along the inputs, so that every instruction set reads
//! it in order.
//!
//! A weight is one matrix `[outputs, inputs]` per expert. Its rows are cut into *panels* of [`PANEL_ROWS`], its columns
//! into *blocks* of [`BLOCK_INPUTS`]; the last of both is filled up with zeros. A block of a panel holds, for codes of 4
//! bits, four pieces of 128 bytes: byte `4 · row + j` of piece `i` has the code of column `8 i + j` in its lower half and
//! that of column `8 i + 4 + j` in its upper half. For codes of 8 bits it has eight such pieces, of column `4 i + j`, and
//! for bfloat16 sixteen, of columns `2 i` and `2 i + 1`. So any 16, 32 or 64 bytes of a piece are 4, 8 or 16 rows, each
//! with what one dot product instruction takes; that is also the form in which matrix instructions take their right
//! operand.

use half::bf16;

use crate::{Error, Result};

/// Rows of a panel.
pub const PANEL_ROWS: usize = 32;

/// Columns of a block.
pub const BLOCK_INPUTS: usize = 32;

/// Weights of a row that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupSize {
    /// 16, two groups in a block.
    G16,
    /// 32, as many as a block has columns.
    G32,
    /// 64.
    G64,
    /// 128.
    G128,
}

impl GroupSize {
    /// Their number.
    pub fn weights(self) -> usize {
        match self {
            GroupSize::G16 => 16,
            GroupSize::G32 => 32,
            GroupSize::G64 => 64,
            GroupSize::G128 => 128,
        }
    }
}

impl TryFrom<i64> for GroupSize {
    type Error = Error;

    fn try_from(weights: i64) -> Result<Self> {
        Ok(match weights {
            16 => GroupSize::G16,
            32 => GroupSize::G32,
            64 => GroupSize::G64,
            128 => GroupSize::G128,
            found => return Err(Error::GroupSize { found }),
        })
    }
}

/// Type of a weight's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// Codes of 4 bits, 0 to 15, with a float16 scale per group. Without zero points 8 stands for zero.
    Int4(GroupSize),
    /// Codes of 8 bits, 0 to 255, with a float16 scale per group. Without zero points 128 stands for zero.
    Int8(GroupSize),
    /// bfloat16.
    Bf16,
}

impl Element {
    /// The element of so many bits; the group size is not looked at where there are no groups.
    ///
    /// # Errors
    /// Bits or a group size without a kernel.
    pub fn new(bits: i64, group_size: i64) -> Result<Self> {
        match bits {
            4 => Ok(Element::Int4(group_size.try_into()?)),
            8 => Ok(Element::Int8(group_size.try_into()?)),
            16 => Ok(Element::Bf16),
            found => Err(Error::Bits { found }),
        }
    }

    /// Width in bits.
    pub fn bits(self) -> usize {
        match self {
            Element::Int4(_) => 4,
            Element::Int8(_) => 8,
            Element::Bf16 => 16,
        }
    }

    /// Weights that share a scale; `None` where there are no scales.
    pub fn group_size(self) -> Option<GroupSize> {
        match self {
            Element::Int4(size) | Element::Int8(size) => Some(size),
            Element::Bf16 => None,
        }
    }

    /// The code that stands for zero where groups have no zero points.
    pub fn middle(self) -> u8 {
        match self {
            Element::Int4(_) => 8,
            Element::Int8(_) => 128,
            Element::Bf16 => 0,
        }
    }

    /// Bytes of a block of a panel.
    pub const fn block_bytes(self) -> usize {
        let bits = match self {
            Element::Int4(_) => 4,
            Element::Int8(_) => 8,
            Element::Bf16 => 16,
        };
        PANEL_ROWS * BLOCK_INPUTS * bits / 8
    }
}

/// Which row of a matrix stands where in its panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowOrder {
    /// One behind the other.
    AsStored,
    /// The matrix is two of equal height, one above the other, and a panel has 16 rows of the first and behind them the
    /// same 16 of the second: what a gated activation takes together comes out of one panel.
    Halves,
}

/// Sizes and type of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Matrices.
    pub experts: usize,
    /// Rows of each.
    pub outputs: usize,
    /// Columns of each.
    pub inputs: usize,
    /// Type of the elements.
    pub element: Element,
    /// Which row stands where.
    pub order: RowOrder,
}

impl Layout {
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

    /// Groups of a row of whole blocks, 0 for an element without scales.
    pub fn groups(&self) -> usize {
        let columns = self.blocks() * BLOCK_INPUTS;
        self.element.group_size().map_or(0, |size| columns.div_ceil(size.weights()))
    }

    /// Bytes of a panel's elements.
    pub fn panel_bytes(&self) -> usize {
        self.blocks() * self.element.block_bytes()
    }

    /// Shape of the tensor of elements, in bytes: `[experts, panels, blocks, bytes of a block]`.
    pub fn codes_shape(&self) -> [usize; 4] {
        [self.experts, self.panels(), self.blocks(), self.element.block_bytes()]
    }

    /// Shape of scales and zero points: `[experts, panels, groups, rows of a panel]`.
    pub fn scales_shape(&self) -> [usize; 4] {
        [self.experts, self.panels(), self.groups(), PANEL_ROWS]
    }

    /// The row of a matrix that stands in a place of a panel; `None` where it is filled up.
    pub fn row(&self, panel: usize, place: usize) -> Option<usize> {
        match self.order {
            RowOrder::AsStored => Some(panel * PANEL_ROWS + place).filter(|row| *row < self.outputs),
            RowOrder::Halves => {
                let (half, height) = (self.outputs / 2, PANEL_ROWS / 2);
                let within = panel * height + place % height;
                (within < half).then_some(within + place / height * half)
            }
        }
    }

    /// Puts the codes of a row, one byte each, into its place of a panel's bytes. Columns that the row does not have are
    /// left as they are.
    pub fn put_codes(&self, panel: &mut [u8], place: usize, codes: &[u8]) {
        for (block, codes) in
            panel.chunks_exact_mut(self.element.block_bytes()).zip(codes.chunks(BLOCK_INPUTS))
        {
            for (column, code) in codes.iter().enumerate() {
                let lane = 4 * place + column % 4;
                match self.element {
                    Element::Int4(_) => {
                        let byte = &mut block[column / 8 * 128 + lane];
                        *byte = match column % 8 {
                            0..4 => *byte & 0xF0 | code & 0x0F,
                            _ => *byte & 0x0F | code << 4,
                        };
                    }
                    Element::Int8(_) => block[column / 4 * 128 + lane] = *code,
                    Element::Bf16 => {}
                }
            }
        }
    }

    /// Puts a row of bfloat16 elements into its place of a panel's bytes.
    pub fn put_elements(&self, panel: &mut [u8], place: usize, elements: &[bf16]) {
        for (block, elements) in
            panel.chunks_exact_mut(self.element.block_bytes()).zip(elements.chunks(BLOCK_INPUTS))
        {
            for (column, element) in elements.iter().enumerate() {
                let first = column / 2 * 128 + place * 4 + column % 2 * 2;
                block[first..first + 2].copy_from_slice(&element.to_le_bytes());
            }
        }
    }

    /// The code at a column of a row, from a panel's bytes.
    pub(crate) fn code(&self, panel: &[u8], place: usize, column: usize) -> u8 {
        let (block, within) = (column / BLOCK_INPUTS, column % BLOCK_INPUTS);
        let block = &panel[block * self.element.block_bytes()..];
        let lane = 4 * place + within % 4;
        match self.element {
            Element::Int4(_) => block[within / 8 * 128 + lane] >> (within % 8 / 4 * 4) & 0x0F,
            Element::Int8(_) => block[within / 4 * 128 + lane],
            Element::Bf16 => 0,
        }
    }

    /// The element at a column of a row, from a panel's bytes.
    pub(crate) fn element(&self, panel: &[u8], place: usize, column: usize) -> bf16 {
        let first = column / 2 * 128 + place * 4 + column % 2 * 2;
        bf16::from_le_bytes([panel[first], panel[first + 1]])
    }

    /// Refuses sizes that no product has. Those that remain can be filled up and multiplied without looking.
    pub(crate) fn check(&self) -> Result<()> {
        let Layout { experts, outputs, inputs, .. } = *self;
        let elements = experts.checked_mul(outputs).and_then(|rows| rows.checked_mul(inputs));
        // rows and columns are filled up to at most this many times as many, of two bytes
        let bytes = elements.and_then(|count| count.checked_mul(2 * PANEL_ROWS * BLOCK_INPUTS));
        match self.order {
            _ if elements == Some(0) => Err(Error::Empty { experts, outputs, inputs }),
            _ if bytes.is_none() => Err(Error::TooLarge { experts, outputs, inputs }),
            RowOrder::Halves if outputs % 2 != 0 => Err(Error::Empty { experts, outputs, inputs }),
            _ => Ok(()),
        }
    }
}
