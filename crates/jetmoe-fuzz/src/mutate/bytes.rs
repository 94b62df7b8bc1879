//! Mutations of a file of any kind.

use crate::Choices;

/// Changes, inserts, removes or repeats bytes.
pub fn mutate_bytes(bytes: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let place = choices.below(bytes.len());
    let length = 1 + choices.below(16);
    let end = (place + length).min(bytes.len());
    match choices.below(7) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << choices.below(8);
            }
        }
        1 => {
            for byte in &mut bytes[place..end] {
                *byte = choices.below(256) as u8;
            }
        }
        2 => bytes.truncate(place),
        3 => drop(bytes.drain(place..end)),
        4 => {
            let repeated = bytes[place..end].repeat(1 << choices.below(10));
            bytes.splice(place..place, repeated);
        }
        5 => {
            let value = [0, 0xff, b'"', b'[', b'{', 0x80].get(choices.below(6)).copied().unwrap_or(0);
            bytes.splice(place..place, std::iter::repeat_n(value, length));
        }
        _ => {
            let appended = choices.below(1 << 12);
            bytes.resize(bytes.len() + appended, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_can_be_mutated() {
        for seed in 0..300 {
            for length in [0, 1, 20] {
                mutate_bytes(&mut vec![7; length], &mut Choices::of_seed(seed));
            }
        }
    }
}
