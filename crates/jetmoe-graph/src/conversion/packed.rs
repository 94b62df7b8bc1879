//! Packs the panels of a matrix, as the custom operators read them.

use jetmoe_format::{BLOCK_INPUTS, ElementType, PANEL_ROWS, PackedLayout};

use super::{Chunk, QUANTIZED_CHUNK, RowPart, Source};
use crate::Result;

/// Panels per chunk.
pub(super) fn panels_per_chunk(layout: &PackedLayout) -> usize {
    (QUANTIZED_CHUNK / (PANEL_ROWS * layout.inputs).max(1)).max(1)
}

impl Source<'_> {
    /// Some panels of one matrix.
    pub(super) fn panels(&self, index: usize, layout: &PackedLayout) -> Result<Chunk> {
        let first = index * panels_per_chunk(layout);
        let mut chunk = Chunk::default();
        for panel in first..(first + panels_per_chunk(layout)).min(layout.panels()) {
            if layout.scheme.format.is_quantized() {
                self.panel_of_codes(panel, layout, &mut chunk)?;
            } else {
                self.panel_of_floats(panel, layout, &mut chunk)?;
            }
        }
        Ok(chunk)
    }

    /// Packs a panel of codes. Padding dequantizes to zero: by its code in columns after a row, by its scale in rows after
    /// the last.
    fn panel_of_codes(&self, panel: usize, layout: &PackedLayout, chunk: &mut Chunk) -> Result<()> {
        let scheme = &layout.scheme;
        let (columns, groups) = (layout.inputs, scheme.groups(layout.inputs));
        let default = scheme.format.default_zero_point();
        let mut weights = vec![0.0; columns];
        let mut codes = vec![0; layout.blocks() * BLOCK_INPUTS];
        let (mut row_scales, mut row_zeros) = (vec![0.0; groups], vec![0; groups]);
        let mut elements = vec![0; layout.panel_bytes()];
        let mut scales = vec![0.0; layout.groups() * PANEL_ROWS];
        let mut zero_points = vec![default; layout.groups() * PANEL_ROWS];
        for position in 0..PANEL_ROWS {
            codes.fill(default);
            if let Some(row) = layout.row(panel, position) {
                let (row_codes, padding) = codes.split_at_mut(columns);
                let part = RowPart { row, columns, first: 0 };
                self.quantize(scheme, part, &mut weights, row_codes, &mut row_scales, &mut row_zeros)?;
                if scheme.zero_points {
                    for (column, code) in padding.iter_mut().enumerate() {
                        let group = (columns + column) / scheme.group_size;
                        *code = row_zeros.get(group).copied().unwrap_or(default);
                    }
                } else {
                    // the same codes without a sign
                    row_codes.iter_mut().for_each(|code| *code ^= default);
                    row_zeros.fill(default);
                }
                for (group, (scale, zero_point)) in row_scales.iter().zip(&row_zeros).enumerate() {
                    scales[group * PANEL_ROWS + position] = *scale;
                    zero_points[group * PANEL_ROWS + position] = *zero_point;
                }
            }
            layout.pack_codes(&mut elements, position, &codes);
        }
        chunk.elements.append(&mut elements);
        chunk.scales.extend(scheme.encode_scales(&scales));
        if scheme.zero_points {
            chunk.zero_points.append(&mut zero_points);
        }
        Ok(())
    }

    fn panel_of_floats(&self, panel: usize, layout: &PackedLayout, chunk: &mut Chunk) -> Result<()> {
        let columns = layout.inputs;
        let mut weights = vec![0.0; columns];
        let mut elements = vec![0; layout.panel_bytes()];
        for position in 0..PANEL_ROWS {
            let Some(row) = layout.row(panel, position) else { continue };
            self.read(row * columns, &mut weights);
            let bytes = ElementType::BFloat16.encode(&weights).map_err(|column| {
                self.not_representable(row * columns + column, weights[column], ElementType::BFloat16)
            })?;
            layout.pack_elements(&mut elements, position, &bytes);
        }
        chunk.elements.append(&mut elements);
        Ok(())
    }
}
