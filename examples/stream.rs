//! Streams a text to a client, and ends when the client disconnects or a deadline passes.
//!
//!     cargo run --example stream -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use jetmoe_rt::{GenerationOptions, Generator, LoadOptions, Model, Request};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: stream ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let generator = Generator::new(&model)?;
    let options = GenerationOptions::for_model(&model).with_max_new_tokens(80);

    let prompt = "And it came to pass in those days,";
    let mut client = io::stdout().lock();
    client.write_all(prompt.as_bytes())?;

    // The deadline ends the request also while a long prompt is computed. A server has a `CancellationToken` besides, which any
    // thread can cancel when the client leaves.
    let request =
        Request::new(prompt).with_options(options).with_deadline(Instant::now() + Duration::from_secs(30));
    let mut stream = generator.stream(request)?;
    for event in &mut stream {
        // A piece of text never splits a character, so it can be sent at once. An error ends the loop: the client is gone,
        // and dropping the stream ends the generation.
        client.write_all(event?.text.as_bytes()).context("the client disconnected")?;
        client.flush().context("the client disconnected")?;
    }
    for answer in stream.finish()? {
        writeln!(client, "\n({} new tokens, ended by {})", answer.token_ids.len(), answer.finish_reason)?;
    }
    Ok(())
}
