//! Panels of a matrix, in the layout of `jetmoe-kernels`.

use half::bf16;
use jetmoe_kernels::{BLOCK_INPUTS, Layout, PANEL_ROWS};
use jetmoe_quantize::Scheme;

use super::{Piece, QUANTIZED_PIECE, RowPart, Source, encode_scales};
use crate::panels::Panels;
use crate::{ElementType, Result};

/// Panels of a piece.
pub(super) fn panels_of_a_piece(layout: &Layout) -> usize {
    (QUANTIZED_PIECE / (PANEL_ROWS * layout.inputs).max(1)).max(1)
}

impl Source<'_> {
    /// Some panels of one matrix.
    pub(super) fn panels(&self, index: usize, panels: &Panels) -> Result<Piece> {
        let layout = &panels.layout;
        let first = index * panels_of_a_piece(layout);
        let mut piece = Piece::default();
        for panel in first..(first + panels_of_a_piece(layout)).min(layout.panels()) {
            match panels.scheme() {
                Some(scheme) => self.panel_of_codes(panel, layout, &scheme, &mut piece)?,
                None => self.panel_of_floats(panel, layout, &mut piece)?,
            }
        }
        Ok(piece)
    }

    /// What is filled up stands for zero: by its code in the columns behind a row, by its scale in the rows behind the
    /// last.
    fn panel_of_codes(
        &self,
        panel: usize,
        layout: &Layout,
        scheme: &Scheme,
        piece: &mut Piece,
    ) -> Result<()> {
        let (columns, groups) = (layout.inputs, scheme.groups(layout.inputs));
        let middle = layout.element.middle();
        let mut weights = vec![0.0; columns];
        let mut codes = vec![0; layout.blocks() * BLOCK_INPUTS];
        let (mut row_scales, mut row_zeros) = (vec![0.0; groups], vec![0; groups]);
        let mut elements = vec![0; layout.panel_bytes()];
        let mut scales = vec![0.0; layout.groups() * PANEL_ROWS];
        let mut zero_points = vec![middle; layout.groups() * PANEL_ROWS];
        for place in 0..PANEL_ROWS {
            codes.fill(middle);
            if let Some(row) = layout.row(panel, place) {
                let (own, behind) = codes.split_at_mut(columns);
                let of_row = RowPart { row, columns, first: 0 };
                self.quantize(scheme, of_row, &mut weights, own, &mut row_scales, &mut row_zeros)?;
                if scheme.zero_points {
                    for (column, code) in behind.iter_mut().enumerate() {
                        let group = (columns + column) / scheme.group_size;
                        *code = row_zeros.get(group).copied().unwrap_or(middle);
                    }
                } else {
                    // the same codes without a sign
                    own.iter_mut().for_each(|code| *code ^= middle);
                    row_zeros.fill(middle);
                }
                for (group, (scale, zero_point)) in row_scales.iter().zip(&row_zeros).enumerate() {
                    scales[group * PANEL_ROWS + place] = *scale;
                    zero_points[group * PANEL_ROWS + place] = *zero_point;
                }
            }
            layout.put_codes(&mut elements, place, &codes);
        }
        piece.elements.append(&mut elements);
        piece.scales.extend(encode_scales(&scales, scheme));
        if scheme.zero_points {
            piece.zero_points.append(&mut zero_points);
        }
        Ok(())
    }

    fn panel_of_floats(&self, panel: usize, layout: &Layout, piece: &mut Piece) -> Result<()> {
        let columns = layout.inputs;
        let mut weights = vec![0.0; columns];
        let mut elements = vec![0; layout.panel_bytes()];
        for place in 0..PANEL_ROWS {
            let Some(row) = layout.row(panel, place) else { continue };
            self.read(row * columns, &mut weights);
            let rounded: Vec<bf16> = weights.iter().map(|weight| bf16::from_f32(*weight)).collect();
            let overflows = |(weight, rounded): (&f32, &bf16)| weight.is_finite() && !rounded.is_finite();
            if let Some(column) = weights.iter().zip(&rounded).position(overflows) {
                let place = row * columns + column;
                return Err(self.not_representable(place, weights[column], ElementType::BFloat16));
            }
            layout.put_elements(&mut elements, place, &rounded);
        }
        piece.elements.append(&mut elements);
        Ok(())
    }
}
