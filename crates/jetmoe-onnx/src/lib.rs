//! ONNX files: their messages, how they are read, and whether a graph is one that the exporter writes.
//!
//! The messages are the part of ONNX's protobuf schema that JetMoE graphs use. [`read`] decodes a file, [`decode`]
//! its content, and [`Model::to_bytes`] encodes one. [`check_graph`] compares a graph of an artifact with the manifest, the
//! configuration and the table of [`ExportedOperator`]s before a backend loads it. [`observe`] adds outputs to a copy of one.
//! This crate builds no graph and runs none.

mod check;
mod data_location;
mod decoded_size;
mod error;
mod messages;
mod observe;
mod operators;
mod reader;

pub use check::{check_graph, metadata};
pub use data_location::with_data_file;
pub use error::{Error, Result};
pub use messages::*;
pub use observe::{ObservedGraph, observe};
pub use operators::{AttributeKind, ExportedOperator, MICROSOFT};
pub use reader::{MAX_ONNX_BYTES, decode, read, read_up_to};
