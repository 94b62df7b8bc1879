//! Generation: prompt in, tokens or text out, one cached step per token.
//!
//! [`TokenGenerator`] knows token ids only: batches, the end of every sequence, the limits. [`TextGenerator`] puts a
//! tokenizer around it: prompts of three kinds, stop strings, text that arrives while it is made. [`PromptLookup`] lets a
//! step make several tokens, [`PrefixCache`] spares a next prompt what it has in common with the last.

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
pub use tokens::{FinishReason, Generated, GenerationStatistics, TokenEvent, TokenGenerator};
