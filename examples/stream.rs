//! Streams a text to a client, and cancels when the client disconnects or a deadline passes.
//!
//!     cargo run --example stream -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context;
use jetmoe_rt::{GenerationOptions, LoadOptions, Model, TextGenerator};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: stream ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = TextGenerator::new(&model)?;
    let options = GenerationOptions { max_new_tokens: 80, ..GenerationOptions::for_model(&model) };

    let prompt = "And it came to pass in those days,";
    let mut client = io::stdout().lock();
    client.write_all(prompt.as_bytes())?;

    let deadline = Instant::now() + Duration::from_secs(30);
    let mut sent = Ok(());
    let answer = generator.stream(prompt, &options, |piece| {
        // A piece never splits a character, so it can be sent at once.
        sent = client.write_all(piece.as_bytes()).and_then(|()| client.flush());
        // Cancel generation if the client is gone or the deadline has passed.
        if sent.is_err() || Instant::now() > deadline {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    sent.context("the client disconnected")?;

    writeln!(client, "\n({} new tokens, ended by {})", answer.token_ids.len(), answer.finish_reason)?;
    Ok(())
}
