//! Uses the interface of `jetmoe-rt` as a program outside the workspace does, with no other crate: load by precision and
//! profile, stream, cancel, keep a prefix, score, map errors. Every step checks what it gets.
//!
//!     cargo run -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT --precision q4 --profile native`.

use std::ops::ControlFlow;

use jetmoe_rt::{
    Artifact, CancellationToken, ChatMessage, Completion, Error, ErrorKind, FinishReason, GenerationOptions,
    Generator, GraphRecord, LoadOptions, Manifest, Model, ModelConfig, Multinomial, OutputName, Precision,
    PrefixCache, Profile, Prompt, Request, Result, Score, ScoringRequest, Session, StepOutput, Stream, Task,
    TokenBatch, backend, ndarray,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let artifact = std::env::args_os().nth(1).ok_or("usage: embedding ARTIFACT")?;
    let artifact = Artifact::open(artifact)?;
    let manifest: &Manifest = artifact.manifest();
    let has_graph =
        |graph: &GraphRecord| graph.precision == Precision::Q4 && graph.profile == Profile::Native;
    assert!(manifest.graphs.iter().any(has_graph), "the artifact has no native q4 graph");
    for name in ["ort", "tract"] {
        let options = LoadOptions::default()
            .with_backend(backend(name)?)
            .with_precision("q4".parse::<Precision>()?)
            .with_profile(Profile::Native)
            .with_threads(1);
        let model = Model::load_artifact(&artifact, &options)?;
        assert_eq!(model.task(), Task::CausalLm);
        assert_eq!((model.precision(), model.profile()), (Some(Precision::Q4), Some(Profile::Native)));
        assert!(model.backend().starts_with(name), "{}", model.backend());
        generate(&model)?;
        cancel(&model)?;
        converse(&model)?;
        score(&model)?;
        refuse(&model)?;
        println!("{} passed", model.backend());
    }
    let unknown = Model::load(artifact.folder(), &LoadOptions::default().with_precision(Precision::Bf16));
    assert_eq!(unknown.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    Ok(())
}

fn limited(model: &Model, max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions::for_model(model).with_max_new_tokens(max_new_tokens)
}

/// The three ways to run one request give the same result.
fn generate(model: &Model) -> Result<()> {
    let generator = Generator::new(model)?;
    let options = limited(model, 12)
        .with_sampling(Multinomial::new(0.7).with_top_k(40))
        .with_seed(3)
        .with_log_probabilities(2);
    let request = Request::new("In the beginning").with_options(options);
    generator.check(&request)?;
    let answer: Completion = generator.run(request.clone())?;
    assert_eq!((answer.token_ids.len(), answer.finish_reason), (12, FinishReason::Length));
    assert!(answer.timings.first_token.is_some() && !answer.text.is_empty());
    let log_probabilities = answer.log_probabilities.as_deref().unwrap_or_default();
    assert_eq!(log_probabilities.len(), 12);
    assert!(log_probabilities.iter().all(|token| token.chosen <= 0.0 && token.best.len() == 2));

    let mut stream: Stream = generator.stream(request.clone())?;
    let mut text = String::new();
    for event in &mut stream {
        text += &event?.text;
    }
    assert_eq!(text, answer.text);
    let mut tokens = Vec::new();
    let completions = generator.for_each(request, |event| {
        tokens.extend(event.token.map(|token| token.token_id));
        ControlFlow::Continue(())
    })?;
    assert_eq!((&tokens, &completions[0].text), (&answer.token_ids, &answer.text));
    let batch = Request::batch(["In the beginning", "And God said,"]).with_options(limited(model, 4));
    assert_eq!(generator.run_batch(batch)?.len(), 2);
    Ok(())
}

/// Another thread cancels while tokens are generated.
fn cancel(model: &Model) -> Result<()> {
    let generator = Generator::new(model)?;
    let token = CancellationToken::new();
    let options = limited(model, 100_000).with_eos_token_ids(Vec::new());
    let request = Request::new("In the beginning").with_options(options).with_cancellation(&token);
    let mut stream = generator.stream(request)?;
    let first = stream.next().transpose()?;
    assert!(first.is_some_and(|event| event.token.is_some()));
    let canceller = std::thread::spawn(move || token.cancel());
    assert!(canceller.join().is_ok());
    let rest: Vec<_> = stream.by_ref().collect::<Result<_>>()?;
    assert_eq!(rest.len(), 1, "the event that says that it is cancelled");
    let answer = &stream.finish()?[0];
    assert_eq!((answer.token_ids.len(), answer.finish_reason), (1, FinishReason::Cancelled));
    Ok(())
}

/// The second turn of a conversation reuses the first.
fn converse(model: &Model) -> Result<()> {
    let generator = Generator::new(model)?;
    let cache = PrefixCache::new();
    let mut messages = vec![ChatMessage::user("Who made the heaven?")];
    for turn in 0..2 {
        let request = Request::new(&messages).with_options(limited(model, 8)).with_prefix_cache(&cache);
        let answer = generator.run(request)?;
        assert_eq!(answer.statistics.reused_tokens > 0, turn > 0);
        messages.extend([ChatMessage::assistant(answer.text), ChatMessage::user("And the earth?")]);
    }
    Ok(())
}

/// Log-probabilities of a given text, and its logits from the layer below.
fn score(model: &Model) -> Result<()> {
    let config: &ModelConfig = model.config();
    let generator = Generator::new(model)?;
    let choices = [" God created the heaven", " the stock market rallied"];
    let request = ScoringRequest::continuations("In the beginning", choices);
    generator.check_scoring(&request)?;
    let scores: Vec<Score> = generator.score(&request)?;
    assert!(scores[0].log_probability > scores[1].log_probability, "{scores:?}");

    let ids = generator.encode(Prompt::from("In the beginning God created"))?;
    let mut session: Session = model.session()?;
    let output: StepOutput = session.step(&TokenBatch::left_padded(&[&ids], 0)?)?;
    let logits: ndarray::ArrayView3<'_, f32> = output.logits()?;
    assert_eq!(logits.dim(), (1, ids.len(), config.vocab_size));
    assert!(output.get(OutputName::Logits).is_some());
    Ok(())
}

/// Errors of the caller are told from others, and cost nothing.
fn refuse(model: &Model) -> Result<()> {
    let generator = Generator::new(model)?;
    let too_long = "word ".repeat(2 * model.config().max_position_embeddings);
    let out_of_range = [u32::MAX];
    let invalid = limited(model, 0);
    for (request, kind, status) in [
        (Request::new(""), ErrorKind::InvalidInput, 400),
        (Request::new(too_long), ErrorKind::TooLong, 413),
        (Request::new(out_of_range), ErrorKind::InvalidInput, 400),
        (Request::new("x").with_options(invalid), ErrorKind::InvalidInput, 400),
    ] {
        let error: Error = match generator.check(&request) {
            Err(error) => error,
            Ok(()) => panic!("{request:?} was not refused"),
        };
        assert_eq!((error.kind(), error.kind().http_status()), (kind, status), "{error}");
    }
    Ok(())
}
