//! Generation: prompts in, tokens or text out, one step with a key/value cache per token.
//!
//! [`TokenGenerator`] works on token ids: batches, finish reasons, limits. [`TextGenerator`] adds a tokenizer: text and
//! chat prompts, stop strings, streamed text. [`PromptLookup`] is speculative decoding with drafts from the sequence
//! itself. [`PrefixCache`] reuses the key/value cache for a prompt that begins like the previous one.

mod lookup;
mod options;
mod prefix;
mod sampling;
mod text;
mod tokens;

pub use lookup::PromptLookup;
pub use options::{GenerationOptions, Sampling};
pub use prefix::PrefixCache;
pub use text::{GeneratedText, Prompt, TextGenerator};
pub use tokens::{FinishReason, Generation, GenerationStatistics, TokenEvent, TokenGenerator};
