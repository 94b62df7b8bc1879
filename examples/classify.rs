//! Classifies texts, and separates errors of the caller from errors of the service.
//!
//!     cargo run --example classify -- ARTIFACT
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT` from a classifier.
#![allow(clippy::print_stdout, reason = "an example shows what it computed")]

use anyhow::Context;
use jetmoe_rt::{ClassificationOptions, ErrorKind, LoadOptions, Model, TextClassifier};

fn main() -> anyhow::Result<()> {
    let artifact = std::env::args_os().nth(1).context("usage: classify ARTIFACT")?;
    let model = Model::load(artifact, &LoadOptions::default())?;
    let classifier = TextClassifier::new(&model)?; // fails for a model of another task

    // The beginning of a long text is enough to classify it. Without the limit, a text longer than the model's
    // positions is an error.
    let options = ClassificationOptions::default().with_max_tokens(model.config().max_position_embeddings);

    let requests: [&[&str]; 2] = [
        &[
            "And Jacob served seven years for Rachel.",
            "Paul, an apostle of Jesus Christ by the will of God, to the saints which are at Ephesus.",
        ],
        &["And God said,", ""],
    ];
    for texts in requests {
        match classifier.classify(texts, &options) {
            Ok(results) => {
                for (text, result) in texts.iter().zip(results) {
                    println!("{}, {:.1} %: {text}", result.label, result.probability * 100.0);
                }
            }
            Err(error) => match error.kind() {
                // this request cannot be answered, the next one can
                kind @ (ErrorKind::InvalidInput | ErrorKind::TooLong) => {
                    println!("HTTP {}: {error}", kind.http_status());
                }
                _ => return Err(error.into()),
            },
        }
    }
    Ok(())
}
