//! ONNX files: their messages, and how they are read.
//!
//! The messages are the part of ONNX's protobuf schema that JetMoE graphs use. [`read`] decodes a file,
//! [`Model::to_bytes`] encodes one. This crate builds no graph and runs none.

mod decoded_size;
mod error;
mod messages;
mod reader;

pub use error::{Error, Result};
pub use messages::*;
pub use reader::{MAX_GRAPH_BYTES, MAX_ONNX_BYTES, read, read_up_to};
