//! Behaviour of `jetmoe-text`, one file per subject.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chat_template;
mod fixtures;
mod llama;
mod special_tokens;
mod tokenizer;
