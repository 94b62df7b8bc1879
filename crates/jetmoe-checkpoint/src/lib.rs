//! Hugging Face JetMoE checkpoints, read without PyTorch.
//!
//! A [`Checkpoint`] is a folder with `config.json` and safetensors files, opened, validated as a whole and memory-mapped:
//! no tensor is read before its bytes are used. [`GenerationConfig`] holds the defaults for generation. The
//! tokenizer is read by the crate `jetmoe-text`; `jetmoe-hub` downloads a checkpoint.
//!
//! ```no_run
//! let checkpoint = jetmoe_checkpoint::Checkpoint::open("path/to/jetmoe-8b")?;
//! let config = checkpoint.config();
//! println!("{} layers of width {}", config.num_hidden_layers, config.hidden_size);
//! # Ok::<(), jetmoe_checkpoint::Error>(())
//! ```

mod checkpoint;
mod config;
mod digest;
mod dtype;
mod error;
mod files;
mod folder;
mod foreign;
mod generation;
mod index;
mod json;
mod mapped_file;
pub mod names;
mod panics;
mod private_copy;
mod quantized;
mod synthetic;
mod tensors;
mod tokenizer_files;
mod weights;
mod wrappers;

pub use checkpoint::Checkpoint;
pub use config::{Activation, Architecture, ModelConfig, ProblemType, RopeParameters, RopeScaling};
pub use digest::{Digest, Hasher};
pub use dtype::Dtype;
pub use error::{ConfigProblem, Error, Result, WeightProblem};
pub use files::{
    AtomicFile, belongs_to_user, is_inside, open_file, read_bytes, read_json, read_json_if_exists, read_text,
    read_text_if_exists,
};
pub use folder::{EntryKind, Folder};
pub use generation::{GenerationConfig, SettingNotApplied};
pub use index::WeightsIndex;
pub use mapped_file::MappedFile;
pub use panics::catch_panics;
pub use private_copy::PrivateCopy;
pub use quantized::{Quantization, QuantizedMatrix};
pub use synthetic::{SyntheticOptions, jetmoe_8b_config, write_synthetic};
pub use tensors::{TensorView, Tensors, convert_to_f32};
pub use tokenizer_files::{additional_chat_templates, tokenizer_files};
