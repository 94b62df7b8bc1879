//! Generation for the routes: the fields of requests as options, the jobs of a request as one stream, and tokens as texts.

mod constraint;
mod encoding;
mod run;
mod sampling;
mod tokens;

pub(crate) use self::constraint::{ResponseFormat, StructuredOutputs, compile, constraint};
pub(crate) use self::encoding::{encode_chat, encode_text};
pub(crate) use self::run::{Delta, Generation, Usage};
pub(crate) use self::sampling::{DefaultLength, SamplingFields, Stop, request};
pub(crate) use self::tokens::TokenTexts;
