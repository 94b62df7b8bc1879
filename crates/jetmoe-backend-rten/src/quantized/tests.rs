use super::*;

/// A weight `[3, 3]` of 9 codes from −4 to 4, in groups of 2.
fn weight(codes: &[u8], bits: usize) -> QuantizedWeight<'_> {
    let scales = vec![1.0, 1.0, 0.5, 2.0, 1.0, 0.5];
    QuantizedWeight {
        inputs: 3,
        outputs: 3,
        group_size: 2,
        bits,
        signed: true,
        codes,
        scales,
        zero_points: None,
    }
}

const NIBBLES: [u8; 5] = [0xDC, 0xFE, 0x10, 0x32, 0x04];

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn codes_of_4_and_of_8_bits_are_dequantized_group_by_group() {
    let expected = [-4.0, -3.0, -1.0, -1.0, 0.0, 0.5, 4.0, 3.0, 2.0];
    assert_eq!(floats(&weight(&NIBBLES, 4).dequantize()), expected);
    let bytes: Vec<u8> = (-4..=4_i8).map(|code| code as u8).collect();
    assert_eq!(floats(&weight(&bytes, 8).dequantize()), expected);
}

#[test]
fn zero_points_are_subtracted() {
    let (codes, zero_points) = ([0x54, 0x76, 0x98, 0xBA, 0x0C], [0x88; 3]);
    let weight = QuantizedWeight { signed: false, zero_points: Some(&zero_points), ..weight(&codes, 4) };
    assert!(weight.check("w").is_ok());
    assert_eq!(floats(&weight.dequantize()), [-4.0, -3.0, -1.0, -1.0, 0.0, 0.5, 4.0, 3.0, 2.0]);
}

#[test]
fn codes_are_packed_output_by_output() {
    // [16, 2]: the first column holds −8 to 7, the second zeros
    let codes: Vec<u8> = (-8..8_i8).map(|code| code as u8 & 0xF).collect();
    let weight = QuantizedWeight {
        inputs: 16,
        outputs: 2,
        group_size: 16,
        scales: vec![1.0, 2.0],
        ..weight(&codes, 4)
    };
    assert!(weight.check("w").is_ok() && weight.fits_matmul_nbits());
    let packed = weight.pack();
    assert_eq!(packed[..8], [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]);
    assert_eq!(packed[8..], [0x88; 8]);
}

#[test]
fn scales_are_transposed() {
    assert_eq!(floats(&weight(&NIBBLES, 4).transpose_scales()), [1.0, 2.0, 1.0, 1.0, 0.5, 0.5]);
}

#[test]
fn rten_multiplies_with_whole_groups_of_signed_4_bit_codes() {
    let whole = || QuantizedWeight { inputs: 32, group_size: 16, ..weight(&[], 4) };
    assert!(whole().fits_matmul_nbits());
    assert!(!QuantizedWeight { bits: 8, ..whole() }.fits_matmul_nbits());
    assert!(!QuantizedWeight { signed: false, ..whole() }.fits_matmul_nbits());
    assert!(!QuantizedWeight { zero_points: Some(&[]), ..whole() }.fits_matmul_nbits());
    assert!(!QuantizedWeight { group_size: 8, ..whole() }.fits_matmul_nbits());
    assert!(!QuantizedWeight { inputs: 40, ..whole() }.fits_matmul_nbits());
}

#[test]
fn parts_of_another_size_are_refused() {
    assert!(weight(&NIBBLES, 4).check("w").is_ok());
    let error = weight(&NIBBLES[1..], 4).check("w").unwrap_err();
    assert_eq!(error.to_string(), "the weight w is no matrix 3 × 3 in groups of 2");
    assert!(QuantizedWeight { scales: vec![1.0], ..weight(&NIBBLES, 4) }.check("w").is_err());
    assert!(QuantizedWeight { zero_points: Some(&[0]), ..weight(&NIBBLES, 4) }.check("w").is_err());
    assert!(QuantizedWeight { inputs: usize::MAX, ..weight(&NIBBLES, 4) }.check("w").is_err());
}
