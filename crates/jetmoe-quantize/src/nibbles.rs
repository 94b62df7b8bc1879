/// Two codes a byte, the first in the low half, as ONNX packs its 4-bit types. Of each code the low four bits count; an
/// odd last one stands alone, with zeros above it.
pub fn pack_nibbles(codes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(codes.len().div_ceil(2));
    let (pairs, rest) = codes.as_chunks::<2>();
    packed.extend(pairs.iter().map(|[low, high]| (low & 0xF) | (high << 4)));
    packed.extend(rest.iter().map(|low| low & 0xF));
    packed
}

/// The first `count` codes of packed bytes, each from 0 to 15.
pub fn unpack_nibbles(packed: &[u8], count: usize) -> Vec<u8> {
    packed.iter().flat_map(|byte| [byte & 0xF, byte >> 4]).take(count).collect()
}
