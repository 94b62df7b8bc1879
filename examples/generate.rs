//! Continues several texts in one batch.
//!
//!     cargo run --example generate -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{GenerationOptions, Generator, LoadOptions, Model, Multinomial, Request};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: generate ARTIFACT")?;

    // Loading checks the artifact and compiles the graph, so do it once; clones of the model share its weights.
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = Generator::new(&model)?;

    // The checkpoint's defaults with four changes. The limit bounds the time of a request, the seed makes an answer
    // reproducible.
    let options = GenerationOptions::for_model(&model)
        .with_max_new_tokens(60)
        .with_sampling(Multinomial::new(0.5).with_top_k(50).with_top_p(0.95))
        .with_seed(1)
        .with_stop(["\n"]); // a verse is a line

    // Prompts of one batch share every step. An invalid prompt is rejected before any computation.
    let prompts = ["In the beginning", "And the LORD said unto Moses,", "Blessed are"];
    let answers = generator.run_batch(Request::batch(prompts).with_options(options))?;

    println!("with {}", model.backend());
    for (prompt, answer) in prompts.iter().zip(&answers) {
        // The answer begins with the space that separates it from the prompt.
        println!("\n{prompt}{}", answer.text);
        println!("({} new tokens, ended by {})", answer.token_ids.len(), answer.finish_reason);
    }
    Ok(())
}
