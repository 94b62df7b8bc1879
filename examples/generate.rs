//! Continues several texts in one batch.
//!
//!     cargo run --example generate -- ARTIFACT
//!
//! ARTIFACT is a folder that `jetmoe-export CHECKPOINT --output ARTIFACT` made.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{GenerationOptions, LoadOptions, Model, Sampling, TextGenerator};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: generate ARTIFACT")?;

    // Loading checks the artifact and prepares the graph, so it is done once; a clone of the model shares its weights.
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = TextGenerator::new(&model)?;

    // The checkpoint's own defaults, but for four things. The limit keeps one request from holding the model for long,
    // and the seed lets anybody repeat an answer that somebody complains about.
    let options = GenerationOptions {
        max_new_tokens: 60,
        sampling: Sampling::Multinomial { temperature: 0.5, top_k: Some(50), top_p: Some(0.95), min_p: None },
        seed: Some(1),
        stop: vec!["\n".to_owned()], // a verse is a line
        ..GenerationOptions::for_model(&model)
    };

    // Prompts of one batch share every step. One that the model cannot take is refused before anything is computed.
    let prompts = ["In the beginning", "And the LORD said unto Moses,", "Blessed are"];
    let answers = generator.generate_batch(prompts, &options)?;

    println!("with {}", model.runtime());
    for (prompt, answer) in prompts.iter().zip(&answers) {
        // The answer begins with the space that parts it from the prompt.
        println!("\n{prompt}{}", answer.text);
        println!("({} new tokens, ended by {})", answer.token_ids.len(), answer.finish_reason);
    }
    Ok(())
}
