//! A conversation of several turns. Each turn computes only the new tokens.
//!
//!     cargo run --example chat -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{ChatMessage, GenerationOptions, Generator, LoadOptions, Model, PrefixCache, Request};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: chat ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = Generator::new(&model)?;
    let options = GenerationOptions::for_model(&model).with_max_new_tokens(40);

    // One cache per conversation; it holds the key/value cache in memory until it is dropped.
    let cache = PrefixCache::new();
    let mut messages = Vec::new();
    for question in ["Who made the heaven?", "And the earth?", "What did he see?"] {
        messages.push(ChatMessage::user(question));
        // Each turn renders the whole conversation; the cache reuses the longest common prefix.
        let request = Request::new(&messages).with_options(options.clone()).with_prefix_cache(&cache);
        let answer = generator.run(request)?;
        println!("{question}\n  {}", answer.text.trim());
        let reused = answer.statistics.reused_tokens;
        println!("  ({reused} of {} tokens of the prompt were cached)", answer.prompt_tokens);
        messages.push(ChatMessage::assistant(answer.text));
    }
    Ok(())
}
