//! Generation: prompt in, tokens or text out, one cached step per token.
//!
//! [`TokenGenerator`] knows token ids only: batches, the end of every sequence, the limits. [`TextGenerator`] puts a
//! tokenizer around it: prompts of three kinds, stop strings, text that arrives while it is made.

mod detokenizer;
mod options;
mod sampling;
mod stop;
mod stream;
mod text;
mod tokens;

pub use options::{GenerationOptions, Sampling};
pub use stream::TextStream;
pub use text::{GeneratedText, Prompt, TextGenerator};
pub use tokens::{FinishReason, Generated, TokenEvent, TokenGenerator};
