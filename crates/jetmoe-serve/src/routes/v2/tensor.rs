//! Tensors of requests: datatypes, and elements from JSON or from the bytes behind it.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::data::{Elements, JsonData};
use super::problem::Problem;

/// Datatypes of the protocol that models here take or return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum DataType {
    /// Signed integers of 8 bytes.
    Int64,
    /// IEEE 754 numbers of 4 bytes.
    Fp32,
    /// Texts: in JSON strings, in bytes each after its length of 4 bytes.
    Bytes,
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataType::Int64 => "INT64",
            DataType::Fp32 => "FP32",
            DataType::Bytes => "BYTES",
        })
    }
}

/// A tensor of a request, with as many elements as its shape says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Elements,
}

impl Tensor {
    /// A tensor in JSON.
    ///
    /// # Errors
    /// Elements of another type or number, or lists of another shape.
    pub(super) fn from_json(
        name: &str,
        datatype: DataType,
        shape: &[u64],
        data: JsonData,
    ) -> Result<Self, Problem> {
        let (shape, count) = checked_shape(name, shape)?;
        let found = data.elements.len();
        if found != count {
            return Err(Problem::Elements { tensor: name.to_owned(), found, shape, expected: count });
        }
        if !data.has_shape(&shape) {
            return Err(Problem::Nesting { tensor: name.to_owned(), found: data.lengths, shape });
        }
        let has_type = match (&data.elements, datatype) {
            (Elements::Integers(integers), DataType::Bytes) => integers.is_empty(),
            (Elements::Integers(_), DataType::Int64) | (Elements::Texts(_), DataType::Bytes) => true,
            _ => false,
        };
        if !has_type {
            return Err(Problem::ElementType { tensor: name.to_owned(), datatype });
        }
        Ok(Tensor { name: name.to_owned(), shape, elements: data.elements })
    }

    /// A tensor in bytes: little-endian elements, row by row.
    ///
    /// # Errors
    /// Another number of bytes than the shape says, or texts that are not UTF-8.
    pub(super) fn from_bytes(
        name: &str,
        datatype: DataType,
        shape: &[u64],
        bytes: &[u8],
    ) -> Result<Self, Problem> {
        let (shape, count) = checked_shape(name, shape)?;
        let elements = match datatype {
            DataType::Int64 => Elements::Integers(integers(name, &shape, count, bytes)?),
            DataType::Bytes => Elements::Texts(texts(name, &shape, count, bytes)?),
            DataType::Fp32 => return Err(Problem::ElementType { tensor: name.to_owned(), datatype }),
        };
        Ok(Tensor { name: name.to_owned(), shape, elements })
    }
}

/// A shape and its number of elements.
fn checked_shape(name: &str, shape: &[u64]) -> Result<(Vec<usize>, usize), Problem> {
    let too_large = || Problem::ShapeTooLarge { tensor: name.to_owned(), shape: shape.to_vec() };
    let sizes: Vec<usize> =
        shape.iter().map(|size| usize::try_from(*size)).collect::<Result<_, _>>().map_err(|_| too_large())?;
    let count = sizes.iter().try_fold(1, |count: usize, size| count.checked_mul(*size));
    Ok((sizes, count.ok_or_else(too_large)?))
}

fn integers(name: &str, shape: &[usize], count: usize, bytes: &[u8]) -> Result<Vec<i64>, Problem> {
    let (elements, rest) = bytes.as_chunks::<8>();
    if elements.len() != count || !rest.is_empty() {
        return Err(Problem::BinarySize {
            tensor: name.to_owned(),
            found: bytes.len(),
            shape: shape.to_vec(),
            datatype: DataType::Int64,
        });
    }
    Ok(elements.iter().map(|element| i64::from_le_bytes(*element)).collect())
}

fn texts(name: &str, shape: &[usize], count: usize, mut bytes: &[u8]) -> Result<Vec<String>, Problem> {
    let total = bytes.len();
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let index = texts.len();
        let Some((text, rest)) = rest.split_at_checked(length) else {
            return Err(Problem::TextLength { tensor: name.to_owned(), index, length, left: rest.len() });
        };
        let text = std::str::from_utf8(text).map_err(|_| Problem::Utf8 { tensor: name.to_owned(), index })?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    if texts.len() != count || !bytes.is_empty() {
        return Err(Problem::BinarySize {
            tensor: name.to_owned(),
            found: total,
            shape: shape.to_vec(),
            datatype: DataType::Bytes,
        });
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::super::data::{Elements, JsonData};
    use super::{DataType, Tensor};

    fn bytes_of(texts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in texts {
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(*text);
        }
        bytes
    }

    #[test]
    fn integers_are_little_endian() {
        let values = [0, 1, -1, i64::MIN, i64::MAX, 0x0102_0304_0506_0708];
        let bytes: Vec<u8> = values.iter().flat_map(|value: &i64| value.to_le_bytes()).collect();
        let tensor = Tensor::from_bytes("x", DataType::Int64, &[2, 3], &bytes).unwrap();
        assert_eq!(tensor.elements, Elements::Integers(values.to_vec()));
        for length in [0, 1, 47, 40] {
            let error = Tensor::from_bytes("x", DataType::Int64, &[2, 3], &bytes[..length]).unwrap_err();
            assert!(error.to_string().contains(&format!("x has {length} bytes")), "{error}");
        }
    }

    #[test]
    fn texts_follow_their_lengths() {
        let bytes = bytes_of(&[b"", "ä".as_bytes(), b"abc"]);
        let tensor = Tensor::from_bytes("x", DataType::Bytes, &[3], &bytes).unwrap();
        assert_eq!(tensor.elements, Elements::Texts(["", "ä", "abc"].map(str::to_owned).to_vec()));
        for end in 0..bytes.len() {
            assert!(Tensor::from_bytes("x", DataType::Bytes, &[3], &bytes[..end]).is_err(), "{end}");
        }
        assert!(Tensor::from_bytes("x", DataType::Bytes, &[4], &bytes).is_err());
        let invalid = Tensor::from_bytes("x", DataType::Bytes, &[1], &bytes_of(&[&[0xff]])).unwrap_err();
        assert!(invalid.to_string().contains("UTF-8"), "{invalid}");
        let beyond = Tensor::from_bytes("x", DataType::Bytes, &[1], &[0xff; 8]).unwrap_err();
        assert!(beyond.to_string().contains("4294967295 bytes"), "{beyond}");
    }

    #[test]
    fn a_shape_beyond_memory_is_refused_before_anything_is_allocated() {
        for shape in [[u64::MAX, 2], [1 << 62, 1 << 62], [1 << 40, 1]] {
            assert!(Tensor::from_bytes("x", DataType::Int64, &shape, &[0; 16]).is_err());
            assert!(Tensor::from_bytes("x", DataType::Bytes, &shape, &[0; 16]).is_err());
            let data: JsonData = serde_json::from_str("[1, 2]").unwrap();
            assert!(Tensor::from_json("x", DataType::Int64, &shape, data).is_err());
        }
    }

    #[test]
    fn elements_in_json_have_the_type_and_the_shape() {
        let parse = |json: &str| serde_json::from_str::<JsonData>(json).unwrap();
        let tensor = Tensor::from_json("x", DataType::Int64, &[1, 2], parse("[[1, 2]]")).unwrap();
        assert_eq!(tensor, Tensor::from_json("x", DataType::Int64, &[1, 2], parse("[1, 2]")).unwrap());
        let problem = |datatype, shape: &[u64], json| {
            Tensor::from_json("x", datatype, shape, parse(json)).unwrap_err().to_string()
        };
        assert!(problem(DataType::Int64, &[1, 3], "[1, 2]").contains("2 elements"));
        assert!(problem(DataType::Int64, &[2, 1], "[[1, 2]]").contains("[1, 2]"));
        assert!(problem(DataType::Int64, &[1], "[\"1\"]").contains("INT64"));
        assert!(problem(DataType::Bytes, &[1], "[1]").contains("BYTES"));
    }
}
