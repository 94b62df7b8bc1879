//! Continues several texts in one batch.
//!
//!     cargo run --example generate -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{GenerationOptions, LoadOptions, Model, Sampling, TextGenerator};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: generate ARTIFACT")?;

    // Loading checks the artifact and compiles the graph, so do it once; clones of the model share its weights.
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = TextGenerator::new(&model)?;

    // The checkpoint's defaults with four changes. The limit bounds the time of a request, the seed makes an answer
    // reproducible.
    let options = GenerationOptions {
        max_new_tokens: 60,
        sampling: Sampling::Multinomial { temperature: 0.5, top_k: Some(50), top_p: Some(0.95), min_p: None },
        seed: Some(1),
        stop: vec!["\n".to_owned()], // a verse is a line
        ..GenerationOptions::for_model(&model)
    };

    // Prompts of one batch share every step. An invalid prompt is rejected before any computation.
    let prompts = ["In the beginning", "And the LORD said unto Moses,", "Blessed are"];
    let answers = generator.generate_batch(prompts, &options)?;

    println!("with {}", model.backend());
    for (prompt, answer) in prompts.iter().zip(&answers) {
        // The answer begins with the space that separates it from the prompt.
        println!("\n{prompt}{}", answer.text);
        println!("({} new tokens, ended by {})", answer.token_ids.len(), answer.finish_reason);
    }
    Ok(())
}
