//! Runs JetMoE artifacts: backends, key/value cache, sampling, generation, classification.
//!
//! Three types, each owning what lives as long as it does: [`Model`] holds loaded weights and is shared,
//! [`Session`] holds the cache of one batch of sequences, and [`StepOutput`] what one step computed.
//!
//! ```no_run
//! use jetmoe_rt::{GenerationOptions, LoadOptions, Model, TextGenerator};
//!
//! let model = Model::load("path/to/artifact", &LoadOptions::default())?;
//! let generator = TextGenerator::new(&model)?;
//! let answer = generator.generate("In the beginning", &GenerationOptions::default())?;
//! println!("{}", answer.text);
//! # Ok::<(), jetmoe_rt::Error>(())
//! ```
//!
//! No type of this crate's interface names a type of a runtime underneath, so the runtimes can change.

mod batch;
mod classification;
mod device;
pub mod engine;
mod error;
#[cfg(test)]
mod fake;
mod generation;
mod memory;
mod model;
mod session;

pub use batch::TokenBatch;
pub use classification::{Classification, ClassificationOptions, TextClassifier};
pub use device::{
    CudaOptions, Device, OpenVinoDevice, OpenVinoOptions, OpenVinoPrecision, Provider, ProviderOption,
    TensorRtOptions, TokenShape,
};
pub use engine::library::{LibraryCandidate, LibraryOrigin, LibraryStatus, OnnxRuntimeLibrary};
pub use error::{Error, Result};
pub use generation::{
    FinishReason, GeneratedText, Generation, GenerationOptions, GenerationStatistics, PrefixCache, Prompt,
    PromptLookup, Sampling, TextGenerator, TokenEvent, TokenGenerator,
};
pub use jetmoe_text::{ChatMessage, TextStream, Tokenizer};
pub use memory::available_memory;
pub use model::{LoadOptions, Model, Runtime};
pub use session::{Session, StepOutput};
