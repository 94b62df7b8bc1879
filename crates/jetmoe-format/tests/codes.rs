//! Two codes per byte.

use jetmoe_format::WeightFormat;
use proptest::prelude::*;

#[test]
fn the_first_of_two_codes_is_the_low_half_of_the_byte() {
    assert_eq!(pack_nibbles(&[0x1, 0xF, 0x8, 0x0]), [0xF1, 0x08]);
    assert_eq!(unpack_nibbles(&[0xF1, 0x08], 4), [0x1, 0xF, 0x8, 0x0]);
}

#[test]
fn an_odd_last_code_has_zeros_above_it() {
    assert_eq!(pack_nibbles(&[0x2, 0x3, 0xE]), [0x32, 0x0E]);
    assert_eq!(pack_nibbles(&[0xFF]), [0x0F]);
    assert_eq!(pack_nibbles(&[]), [0_u8; 0]);
}

/// Signed codes are bytes in two's complement.
#[test]
fn of_a_code_the_low_four_bits_count() {
    let codes: Vec<u8> = (-8_i8..8).map(i8::cast_unsigned).collect();
    let halves: Vec<u8> = (0..16).map(|code| (code + 8) % 16).collect();
    assert_eq!(unpack_nibbles(&pack_nibbles(&codes), 16), halves);
}

#[test]
fn no_more_codes_come_out_than_are_asked_for() {
    assert_eq!(unpack_nibbles(&[0x21, 0x43], 3), [1, 2, 3]);
    assert_eq!(unpack_nibbles(&[0x21, 0x43], 0), [0_u8; 0]);
}

fn pack_nibbles(codes: &[u8]) -> Vec<u8> {
    WeightFormat::Int4.pack(codes)
}

fn unpack_nibbles(packed: &[u8], count: usize) -> Vec<u8> {
    WeightFormat::Int4.unpack(packed, count)
}

proptest! {
    #[test]
    fn what_is_packed_comes_out_again(codes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let packed = pack_nibbles(&codes);
        prop_assert_eq!(packed.len(), codes.len().div_ceil(2));
        let low: Vec<u8> = codes.iter().map(|code| code % 16).collect();
        prop_assert_eq!(unpack_nibbles(&packed, codes.len()), low);
    }
}
