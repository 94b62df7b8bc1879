//! Scores given texts offline: the choices of a question, and the perplexity of whole texts.
//!
//!     cargo run --example score -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{Generator, LoadOptions, Model, ScoringOptions, ScoringRequest};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: score ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = Generator::new(&model)?;

    // Which choice does the model expect? The space belongs to the continuation, not to the prompt.
    let prompt = "And God said, Let there be light: and there was";
    let choices = [" light", " darkness", " a great multitude"];
    let scores = generator.score(&ScoringRequest::continuations(prompt, choices))?;
    println!("{prompt}");
    for (choice, score) in choices.iter().zip(&scores) {
        // A longer choice has a lower sum. Divide by the number of tokens or characters if that must not count.
        println!("{:8.3} {:2} tokens {choice}", score.log_probability, score.tokens.len());
    }
    let (best, _) = choices
        .iter()
        .zip(&scores)
        .max_by(|(_, left), (_, right)| left.log_probability.total_cmp(&right.log_probability))
        .context("there is no choice")?;
    println!("best:{best}");

    // How well does the model predict whole texts? A text that cannot be scored does not lose the others.
    let texts = [
        "In the beginning God created the heaven and the earth.",
        "",
        "The committee approved the quarterly budget for the new warehouse.",
    ];
    let options = ScoringOptions::default().with_batch_size(8);
    println!();
    for (text, result) in
        texts.iter().zip(generator.score_each(&ScoringRequest::texts(texts).with_options(options))?)
    {
        match result {
            Ok(score) => {
                println!("perplexity {:8.1}, {} tokens: {text}", score.perplexity(), score.tokens.len())
            }
            Err(error) => println!("not scored: {error}"),
        }
    }
    Ok(())
}
