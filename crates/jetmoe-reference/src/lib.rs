//! JetMoE in Candle, in float32, written from the model's definition (transformers' `JetMoe`, v5.23). Every other backend
//! is compared with it. It shares no code with the graph, so that both cannot have the same bug.
//!
//! One file per part of the model, mirroring `jetmoe-graph/src/model/`, with the shape after every step.
//!
//! ```no_run
//! use jetmoe_reference::{Cache, Inputs, Reference};
//!
//! let checkpoint = jetmoe_checkpoint::Checkpoint::open("path/to/jetmoe-8b")?;
//! let reference = Reference::load(&checkpoint)?;
//! let mut cache = Cache::new();
//! let inputs = Inputs {
//!     input_ids: &[1, 306, 626],
//!     attention_mask: &[1, 1, 1],
//!     position_ids: &[0, 1, 2],
//!     batch_size: 1,
//!     sequence_length: 3,
//! };
//! let outputs = reference.forward(&inputs, &mut cache)?;
//! let logits = reference.logits(&outputs.last_hidden_state)?; // [1, 3, vocab_size]
//! # Ok::<(), jetmoe_reference::Error>(())
//! ```

mod attention;
mod cache;
mod error;
mod experts;
mod head;
mod inputs;
mod layer;
mod layerwise;
mod mask;
mod mlp;
mod model;
mod norm;
mod observer;
mod rotary;
mod router;
mod weights;

pub use cache::{Cache, LayerCache};
pub use error::{Error, Result};
pub use inputs::Inputs;
pub use layerwise::LayerwiseReference;
pub use model::{Outputs, Reference};
pub use observer::Observer;
pub use weights::WeightOverrides;
