//! A matrix as `DequantizeLinear` stores it, packed in panels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jetmoe_format::{Error, PANEL_ROWS, PackedLayout, RowOrder};

/// Sizes that fill no panel and no block, and rows that end inside a byte.
const SIZES: [[usize; 2]; 5] = [[1, 1], [3, 33], [40, 64], [32, 95], [70, 7]];

#[test]
fn a_transposed_matrix_is_packed_like_its_rows() {
    let mut random = fastrand::Rng::with_seed(1);
    for [inputs, outputs] in SIZES {
        for (bits, sign_bit) in [(4, 8), (8, 128)] {
            for is_signed in [false, true] {
                let scheme = PackedLayout::scheme(bits, 32, false).unwrap();
                let layout = PackedLayout { experts: 1, outputs, inputs, scheme, order: RowOrder::AsStored };
                // [inputs, outputs]
                let codes: Vec<u8> =
                    (0..inputs * outputs).map(|_| random.u8(..if bits == 4 { 16 } else { 255 })).collect();
                let stored = match bits {
                    4 => codes.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4).collect(),
                    _ => codes.clone(),
                };
                let size = layout.codes_shape().iter().product();
                let (mut found, mut expected) = (vec![0; size], vec![0; size]);
                for (index, panels) in found.chunks_mut(2 * layout.panel_bytes()).enumerate() {
                    layout.pack_transposed(panels, 2 * index, &stored, is_signed).unwrap();
                }
                for output in 0..outputs {
                    let row: Vec<u8> = (0..inputs)
                        .map(|input| codes[input * outputs + output] ^ if is_signed { sign_bit } else { 0 })
                        .collect();
                    let panel = &mut expected[output / PANEL_ROWS * layout.panel_bytes()..];
                    layout.pack_codes(&mut panel[..layout.panel_bytes()], output % PANEL_ROWS, &row);
                }
                let codes_of = |packed: &[u8]| -> Vec<u8> {
                    let places =
                        (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input)));
                    places
                        .map(|(output, input)| {
                            let panel = &packed[output / PANEL_ROWS * layout.panel_bytes()..];
                            layout.code(panel, output % PANEL_ROWS, input)
                        })
                        .collect()
                };
                assert_eq!(
                    codes_of(&found),
                    codes_of(&expected),
                    "{bits} bits, [{inputs}, {outputs}], {is_signed}"
                );
            }
        }
    }
}

#[test]
fn stored_codes_of_another_size_are_refused() {
    let scheme = PackedLayout::scheme(4, 32, false).unwrap();
    let layout = PackedLayout { experts: 1, outputs: 3, inputs: 3, scheme, order: RowOrder::AsStored };
    let mut panels = vec![0; layout.panel_bytes()];
    let error = layout.pack_transposed(&mut panels, 0, &[0; 4], true).unwrap_err();
    assert_eq!(error.to_string(), Error::Length { tensor: "the codes", found: 4, expected: 5 }.to_string());
}
