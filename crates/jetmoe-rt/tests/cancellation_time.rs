//! How long a cancelled prompt takes to return: a measurement, which runs on request only.
//!
//!     jetmoe synth --like jetmoe-8b --layers 2 --output wide
//!     jetmoe-export wide --output wide-q4 --precision q4 --profile native
//!     JETMOE_ARTIFACT=wide-q4 cargo test --workspace --test cancellation_time -- --ignored --nocapture

use std::thread;
use std::time::Instant;

use jetmoe_rt::{
    CancellationToken, ErrorKind, FinishReason, GenerationOptions, Generator, LoadOptions, Model, Request,
    backends,
};

/// Tokens of the prompt; JetMoE-8B has 4,096 positions.
const PROMPT: u32 = 4_000;

/// When to cancel, as shares of the time that the prompt takes.
const MOMENTS: [f64; 6] = [0.05, 0.2, 0.4, 0.6, 0.8, 0.95];

/// Longest time to return, in times of a chunk.
const LIMIT: f64 = 1.5;

#[test]
#[ignore = "a measurement; JETMOE_ARTIFACT names the artifact"]
fn a_long_prompt_that_is_cancelled_returns_within_the_time_of_a_chunk() {
    let artifact = std::env::var_os("JETMOE_ARTIFACT").expect("JETMOE_ARTIFACT names the artifact");
    let mut measured = 0;
    for backend in backends() {
        let model = match Model::load(&artifact, &LoadOptions::default().with_backend(*backend)) {
            Ok(model) => model,
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            Err(error) => panic!("{error}"),
        };
        let generator = Generator::new(&model).unwrap();
        let vocab_size = model.config().vocab_size as u32;
        let prompt: Vec<u32> = (0..PROMPT).map(|index| index * 7_919 % vocab_size).collect();
        let options = GenerationOptions::default().with_max_new_tokens(1);
        let chunks = prompt.len().div_ceil(options.prefill_chunk) as u32;
        let request = Request::new(prompt).with_options(options);

        let whole = generator.run(request.clone()).unwrap().timings.prompt;
        let chunk = whole / chunks;
        println!("{}: {PROMPT} tokens in {whole:.2?}, {chunks} chunks of {chunk:.0?}", model.backend());
        for moment in MOMENTS {
            let token = CancellationToken::new();
            let request = request.clone().with_cancellation(&token);
            let generator = generator.clone();
            let running = thread::spawn(move || generator.run(request).unwrap());
            thread::sleep(whole.mul_f64(moment));
            let begun = Instant::now();
            token.cancel();
            let completion = running.join().unwrap();
            let took = begun.elapsed();
            let ratio = took.as_secs_f64() / chunk.as_secs_f64();
            println!("  cancelled at {:>2.0} %: returns after {took:.0?}, {ratio:.2} chunks", moment * 100.0);
            assert_eq!(completion.finish_reason, FinishReason::Cancelled);
            assert!(ratio <= LIMIT, "{took:?} is more than {LIMIT} chunks of {chunk:?}");
        }
        measured += 1;
    }
    assert!(measured > 0, "no backend can run the artifact");
}
