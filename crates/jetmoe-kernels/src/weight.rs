//! A weight in its layout, borrowed from where it lies: mapped from a file, or anywhere else.

use half::f16;

use crate::layout::{BLOCK_INPUTS, Layout, PANEL_ROWS};
use crate::{Element, Error, GroupSize, Result};

/// A weight. Nothing of it is copied.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    layout: Layout,
    codes: &'a [u8],
    scales: &'a [f16],
    zero_points: Option<&'a [u8]>,
}

/// One panel of a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// Blocks one behind the other.
    pub(crate) codes: &'a [u8],
    /// `[groups, 32]`
    pub(crate) scales: &'a [f16],
    /// `[groups, 32]`
    pub(crate) zero_points: Option<&'a [u8]>,
}

impl<'a> Weight<'a> {
    /// A weight of these sizes: its elements as bytes, `[experts, panels, blocks, bytes of a block]`, and scales and
    /// perhaps zero points, `[experts, panels, groups, 32]`, where its element has them.
    ///
    /// # Errors
    /// Tensors that do not have the sizes that the layout asks for.
    pub fn new(
        layout: Layout,
        codes: &'a [u8],
        scales: Option<&'a [f16]>,
        zero_points: Option<&'a [u8]>,
    ) -> Result<Self> {
        layout.check()?;
        let bits = layout.element.bits();
        let scales = match (layout.element.group_size(), scales) {
            (Some(_), Some(scales)) => scales,
            (None, None) if zero_points.is_none() => &[],
            (Some(_), None) => return Err(Error::Scales { bits, have: "need" }),
            (None, _) => return Err(Error::Scales { bits, have: "take no" }),
        };
        length("the weight", codes.len(), layout.codes_shape().iter().product())?;
        let groups = layout.scales_shape().iter().product();
        length("the scales", scales.len(), groups)?;
        if let Some(zero_points) = zero_points {
            length("the zero points", zero_points.len(), groups)?;
        }
        Ok(Weight { layout, codes, scales, zero_points })
    }

    /// Its sizes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of one expert's matrix, scales and zero points included.
    pub fn expert_bytes(&self) -> usize {
        let all = self.codes.len() + 2 * self.scales.len() + self.zero_points.map_or(0, <[u8]>::len);
        all / self.layout.experts
    }

    /// Whether groups have zero points of their own.
    pub(crate) fn has_zero_points(&self) -> bool {
        self.zero_points.is_some()
    }

    pub(crate) fn panel(&self, expert: usize, panel: usize) -> Panel<'a> {
        let index = expert * self.layout.panels() + panel;
        let (bytes, groups) = (self.layout.panel_bytes(), self.layout.groups() * PANEL_ROWS);
        Panel {
            codes: &self.codes[index * bytes..][..bytes],
            scales: &self.scales[index * groups..][..groups],
            zero_points: self.zero_points.map(|points| &points[index * groups..][..groups]),
        }
    }

    /// Restores the elements in one place of a panel, as float32.
    pub fn restore(&self, expert: usize, panel: usize, place: usize, elements: &mut [f32]) {
        let (layout, panel) = (&self.layout, self.panel(expert, panel));
        let group_size = layout.element.group_size().map_or(BLOCK_INPUTS, GroupSize::weights);
        for (column, element) in elements.iter_mut().enumerate() {
            *element = match layout.element {
                Element::Bf16 => layout.element(panel.codes, place, column).to_f32(),
                Element::Int4(_) | Element::Int8(_) => {
                    let group = column / group_size * PANEL_ROWS + place;
                    let zero_point =
                        panel.zero_points.map_or(layout.element.middle(), |points| points[group]);
                    let code = i32::from(layout.code(panel.codes, place, column)) - i32::from(zero_point);
                    code as f32 * panel.scales[group].to_f32()
                }
            };
        }
    }
}

pub(crate) fn length(tensor: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Length { tensor, found, expected }) }
}
