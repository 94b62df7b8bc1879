//! A conversation of several turns. Each turn computes only the new tokens.
//!
//!     cargo run --example chat -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use std::ops::ControlFlow;

use anyhow::Context;
use jetmoe_rt::{ChatMessage, GenerationOptions, LoadOptions, Model, PrefixCache, TextGenerator};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: chat ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = TextGenerator::new(&model)?;
    let options = GenerationOptions { max_new_tokens: 40, ..GenerationOptions::for_model(&model) };

    // One cache per conversation; it holds the key/value cache in memory until it is dropped.
    let mut cache = PrefixCache::new();
    let mut messages = Vec::new();
    for question in ["Who made the heaven?", "And the earth?", "What did he see?"] {
        messages.push(ChatMessage { role: "user".to_owned(), content: question.to_owned() });
        // Each turn renders the whole conversation; the cache reuses the longest common prefix.
        let answer =
            generator.stream_cached(&messages, &options, &mut cache, |_| ControlFlow::Continue(()))?;
        println!("{question}\n  {}", answer.text.trim());
        let reused = answer.statistics.reused_tokens;
        println!("  ({reused} of {} tokens of the prompt were cached)", answer.prompt_tokens);
        messages.push(ChatMessage { role: "assistant".to_owned(), content: answer.text });
    }
    Ok(())
}
