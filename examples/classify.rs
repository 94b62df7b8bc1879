//! Classifies texts, and separates errors of the caller from errors of the service.
//!
//!     cargo run --example classify -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT` from a classifier.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{
    ClassificationOptions, ClassificationRequest, ErrorKind, LoadOptions, Model, TextClassifier,
};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: classify ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let classifier = TextClassifier::new(&model)?; // fails for a model of another task

    // The beginning of a long text is enough to classify it; the result says whether it was cut. Without the limit, a text
    // longer than the model's positions is an error.
    let options = ClassificationOptions::default().with_max_tokens(model.config().max_position_embeddings);

    // Each text has a result of its own, so a bad one does not lose the others. An error of the backend fails the call.
    let texts = [
        "And Jacob served seven years for Rachel.",
        "",
        "Paul, an apostle of Jesus Christ by the will of God, to the saints which are at Ephesus.",
    ];
    let request = ClassificationRequest::batch(texts).with_options(options);
    for (text, result) in texts.iter().zip(classifier.classify_each(&request)?) {
        match result {
            Ok(result) => {
                let cut = if result.truncated { ", cut" } else { "" };
                println!(
                    "{}, {:.1} %, {} tokens{cut}: {text}",
                    result.label,
                    result.score * 100.0,
                    result.tokens
                );
            }
            // this text cannot be classified; the status is what an HTTP service would answer if it were the only one
            Err(error) => println!("HTTP {}: {error}", error.kind().http_status()),
        }
    }

    // `classify` is for callers that need all or nothing, and `check` refuses before anything is computed.
    let error =
        classifier.check(&ClassificationRequest::batch(["And God said,", ""])).err().context("accepted")?;
    anyhow::ensure!(error.kind() == ErrorKind::InvalidInput);
    println!("refused: {error}");
    Ok(())
}
