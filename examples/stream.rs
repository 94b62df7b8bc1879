//! Sends a text while it is made, and gives up when nobody waits for it any more.
//!
//!     cargo run --example stream -- ARTIFACT
//!
//! ARTIFACT is a folder that `jetmoe-export CHECKPOINT --output ARTIFACT` made.

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
        // A piece never splits a character, so each can be sent as it is.
        sent = client.write_all(piece.as_bytes()).and_then(|()| client.flush());
        // Text that nobody reads costs as much as any other.
        if sent.is_err() || Instant::now() > deadline {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    sent.context("the client is gone")?;

    writeln!(client, "\n({} new tokens, ended by {})", answer.token_ids.len(), answer.finish_reason)?;
    Ok(())
}
