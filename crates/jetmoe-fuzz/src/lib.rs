//! Mutations of the files of a model, by choices that a seed or a fuzzer makes.
//!
//! The driver of this crate writes mutated models and runs the commands on them; libFuzzer targets pass mutated files to the
//! libraries. The same choices give the same mutation.

mod choices;
mod folder;
mod mutate;

pub use choices::Choices;
pub use folder::copy_folder;
pub use mutate::bytes::mutate_bytes;
pub use mutate::graph::mutate_graph;
pub use mutate::json::{mutate_json, mutate_json_text, to_text};
pub use mutate::safetensors::{mutate_floats, mutate_safetensors};
pub use mutate::template::mutate_template;
pub use mutate::tokenizer::mutate_tokenizer;
