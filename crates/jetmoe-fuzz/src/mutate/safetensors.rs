//! Mutations of safetensors files: their header, the offsets in it, and the length of both.

use serde_json::Value;

use super::bytes::mutate_bytes;
use super::json::{mutate_json, to_text};
use crate::Choices;

/// Changes a file: the length of its header, the header, or the data.
pub fn mutate_safetensors(file: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let Some((header, data)) = split(file) else {
        let mut file = file.to_vec();
        mutate_bytes(&mut file, choices);
        return file;
    };
    match choices.below(8) {
        0 => {
            let length = choices.integer(header.len() as i64) as u64;
            join(length, header, data)
        }
        1 => {
            let mut header = header.to_vec();
            mutate_bytes(&mut header, choices);
            join(header.len() as u64, &header, data)
        }
        2 => {
            let mut file = file.to_vec();
            mutate_bytes(&mut file, choices);
            file
        }
        3 => {
            let mut data = data.to_vec();
            mutate_floats(&mut data, choices);
            join(header.len() as u64, header, &data)
        }
        _ => mutate_header(header, data, choices),
    }
}

/// Replaces float32 elements by numbers that are not finite, zero, or very large.
pub fn mutate_floats(data: &mut [u8], choices: &mut Choices<'_>) {
    const VALUES: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::MAX, 1e-45];
    let (elements, _) = data.as_chunks_mut::<4>();
    let value = choices.pick(&VALUES).copied().unwrap_or(0.0);
    let (first, count) = (choices.below(elements.len()), 1 << choices.below(10));
    for element in elements.iter_mut().skip(first).take(count) {
        *element = value.to_le_bytes();
    }
}

fn mutate_header(header: &[u8], data: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    for _ in 0..=choices.below(3) {
        if choices.once_in(2) {
            mutate_tensor(&mut parsed, choices);
        } else {
            mutate_json(&mut parsed, choices);
        }
    }
    let mut header = to_text(&parsed).into_bytes();
    if !choices.once_in(8) {
        header.resize(header.len().next_multiple_of(8), b' ');
    }
    join(header.len() as u64, &header, data)
}

/// Changes element type, shape or place of one tensor, or gives two tensors each other's name.
fn mutate_tensor(header: &mut Value, choices: &mut Choices<'_>) {
    const TYPES: [&str; 12] =
        ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F4"];
    let Value::Object(tensors) = header else { return };
    let names: Vec<String> = tensors.keys().cloned().collect();
    let (Some(name), Some(other_name)) = (choices.pick(&names), choices.pick(&names)) else { return };
    let (tensor, other) = (tensors[name].clone(), tensors[other_name].clone());
    let choice = choices.below(5);
    if choice == 4 {
        tensors.insert(name.clone(), other);
        tensors.insert(other_name.clone(), tensor);
        return;
    }
    let Some(Value::Object(tensor)) = tensors.get_mut(name) else { return };
    let copied = match choice {
        0 => ("dtype", choices.pick(&TYPES).copied().into()),
        1 => ("data_offsets", other["data_offsets"].clone()),
        2 => ("shape", other["shape"].clone()),
        _ => ("shape", tensor.get("shape").map(rotated).unwrap_or_default()),
    };
    tensor.insert(copied.0.to_owned(), copied.1);
}

/// A shape of as many elements.
fn rotated(shape: &Value) -> Value {
    let mut shape = shape.clone();
    if let Some([first, .., last]) = shape.as_array_mut().map(Vec::as_mut_slice) {
        std::mem::swap(first, last);
    }
    shape
}

/// Header and data of a file: the length of the header in 8 bytes, the header, the data.
fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

fn join(length: u64, header: &[u8], data: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), header, data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let header = br#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[2],"data_offsets":[16,20]}}"#;
        join(header.len() as u64, header, &[1; 20])
    }

    #[test]
    fn a_file_is_split_into_header_and_data() {
        let file = file();
        let (header, data) = split(&file).unwrap();
        assert_eq!((header[0], header[header.len() - 1], data), (b'{', b'}', &[1; 20][..]));
        assert!(split(&file[..30]).is_none() && split(&file[..7]).is_none());
    }

    #[test]
    fn most_seeds_change_a_file() {
        let is_changed = |seed: &u64| mutate_safetensors(&file(), &mut Choices::of_seed(*seed)) != file();
        assert!((0..500).filter(is_changed).count() > 430);
        for seed in 0..50 {
            mutate_safetensors(&[], &mut Choices::of_seed(seed));
        }
    }
}
