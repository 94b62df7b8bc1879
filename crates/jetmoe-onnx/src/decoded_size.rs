//! The memory that a file's messages take once they are decoded, measured without decoding. An empty message has two bytes in
//! a file and a hundred in memory.

use std::mem::size_of;

use crate::messages::{
    Attribute, Graph, Node, OperatorSetId, ShapeDimension, StringStringEntry, Tensor, TensorShape,
    TensorType, Type, ValueInfo,
};

/// A message of ONNX's schema.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Model,
    OperatorSetId,
    Entry,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
}

/// A field whose content has a length in the file.
enum Content {
    Message(Kind),
    /// Numbers, each of at least one byte.
    Numbers,
    /// Text, bytes, or a field that is skipped.
    Bytes,
}

impl Kind {
    /// The content of a field, by its number.
    fn content(self, field: u64) -> Content {
        let message = match (self, field) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Model, 8) => Kind::OperatorSetId,
            (Kind::Model, 14) | (Kind::Tensor, 13) => Kind::Entry,
            (Kind::Graph, 1) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Attribute, 5) => Kind::Tensor,
            (Kind::Graph, 11 | 12) => Kind::ValueInfo,
            (Kind::Node, 5) => Kind::Attribute,
            (Kind::ValueInfo, 2) => Kind::Type,
            (Kind::Type, 1) => Kind::TensorType,
            (Kind::TensorType, 2) => Kind::Shape,
            (Kind::Shape, 1) => Kind::Dimension,
            (Kind::Attribute, 8) | (Kind::Tensor, 1) => return Content::Numbers,
            _ => return Content::Bytes,
        };
        Content::Message(message)
    }

    /// Bytes of the message in memory.
    fn size(self) -> usize {
        match self {
            Kind::Model => size_of::<crate::Model>(),
            Kind::OperatorSetId => size_of::<OperatorSetId>(),
            Kind::Entry => size_of::<StringStringEntry>(),
            Kind::Graph => size_of::<Graph>(),
            Kind::Node => size_of::<Node>(),
            Kind::Attribute => size_of::<Attribute>(),
            Kind::Tensor => size_of::<Tensor>(),
            Kind::ValueInfo => size_of::<ValueInfo>(),
            Kind::Type => size_of::<Type>(),
            Kind::TensorType => size_of::<TensorType>(),
            Kind::Shape => size_of::<TensorShape>(),
            Kind::Dimension => size_of::<ShapeDimension>(),
        }
    }
}

/// A list that grows has up to twice the capacity that it needs.
const GROWTH: u64 = 2;

/// Bytes in memory of the messages in a file, as far as they can be read; stops above `limit`. Where a file cannot be read
/// further, decoding fails too.
pub(crate) fn decoded_size(bytes: &[u8], limit: u64) -> u64 {
    let mut size = 0;
    // what cannot be read is reported by the decoder
    let _ = measure(Kind::Model, bytes, limit, &mut size);
    size
}

fn measure(kind: Kind, mut bytes: &[u8], limit: u64, size: &mut u64) -> Option<()> {
    while !bytes.is_empty() && *size <= limit {
        let key = varint(&mut bytes)?;
        let (field, wire_type) = (key >> 3, key & 7);
        match wire_type {
            0 => {
                varint(&mut bytes)?;
                *size += GROWTH * size_of::<i64>() as u64;
            }
            1 => bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                match kind.content(field) {
                    Content::Message(message) => {
                        *size += GROWTH * message.size() as u64;
                        measure(message, content, limit, size)?;
                    }
                    Content::Numbers => *size += GROWTH * (size_of::<i64>() * length) as u64,
                    Content::Bytes => *size += GROWTH * size_of::<String>() as u64 + length as u64,
                }
            }
            3 => skip_group(&mut bytes)?,
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(())
}

/// Skips a group, an old form of messages, which decoding skips too.
fn skip_group(bytes: &mut &[u8]) -> Option<()> {
    let mut depth = 1_u64;
    while depth > 0 {
        match varint(bytes)? & 7 {
            0 => {
                varint(bytes)?;
            }
            1 => *bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(bytes)?).ok()?;
                *bytes = bytes.get(length..)?;
            }
            3 => depth += 1,
            4 => depth -= 1,
            5 => *bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(())
}

/// A number in as many bytes as it needs, 7 bits each.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
