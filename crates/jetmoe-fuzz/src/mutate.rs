//! Mutations by the kind of a file.

pub(crate) mod bytes;
pub(crate) mod graph;
pub(crate) mod json;
pub(crate) mod safetensors;
pub(crate) mod template;
pub(crate) mod tokenizer;
