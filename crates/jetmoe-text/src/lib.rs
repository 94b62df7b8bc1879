//! Text in and out of a JetMoE model.
//!
//! [`Tokenizer`] encodes and decodes with a checkpoint's or an artifact's `tokenizer.json`, [`ChatTemplate`] renders a
//! conversation as a prompt, and [`TextStream`] turns generated tokens into text as they arrive: a [`Detokenizer`]
//! followed by a [`StopMatcher`].
//!
//! ```no_run
//! use jetmoe_text::{TextStream, Tokenizer};
//!
//! # let generated: Vec<u32> = Vec::new();
//! let tokenizer = Tokenizer::open("path/to/artifact".as_ref())?.expect("a tokenizer");
//! let prompt = tokenizer.encode("In the beginning", true)?;
//! let mut stream = TextStream::new(&tokenizer, &prompt, &["\n\n".to_owned()])?;
//! for token_id in generated {
//!     print!("{}", stream.push(token_id)?);
//! }
//! println!("{}", stream.finish()?);
//! # Ok::<(), jetmoe_text::Error>(())
//! ```

mod chat_template;
mod chat_templates;
mod chat_text;
mod control_tokens;
mod detokenizer;
mod engine;
mod error;
#[cfg(test)]
mod fixtures;
mod jinja;
mod limits;
mod python;
mod special_tokens;
mod stop;
mod stream;
mod token_bytes;
mod tokenizer;
mod tokenizer_tables;

pub use chat_template::{ChatMessage, ChatOptions, ChatTemplate};
pub use chat_text::ChatText;
pub use detokenizer::Detokenizer;
pub use error::{Error, Result};
pub use stop::StopMatcher;
pub use stream::TextStream;
pub use tokenizer::{EncodedInput, Tokenizer};
