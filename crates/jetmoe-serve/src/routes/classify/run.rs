//! Runs a classifier, one input after the other: a step rounds differently for an input alone and with others, and no result may
//! depend on the others.

use jetmoe_rt::{
    CancellationToken, Classification, ClassificationFunction, ClassificationOptions, ClassificationRequest,
    ClassifierInput, Error, Model, TextClassifier,
};

/// How inputs are classified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunOptions {
    /// Whether an input that has more tokens than the model has positions is truncated; otherwise it is an error.
    pub(crate) truncation: Truncation,
    /// What turns logits into scores. `None` for the model's own.
    pub(crate) function: Option<ClassificationFunction>,
}

/// What is done with an input that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truncation {
    /// Its end is removed, or its begin if the tokenizer is configured so.
    Truncate,
    Refuse,
}

impl From<Option<bool>> for Truncation {
    /// Of the field `truncate`.
    fn from(truncate: Option<bool>) -> Self {
        if truncate == Some(true) { Truncation::Truncate } else { Truncation::Refuse }
    }
}

/// Classifies inputs, in their order. Control tokens in texts are text.
///
/// # Errors
/// As [`TextClassifier::new`] and [`TextClassifier::classify`].
pub(crate) fn classify(
    model: &Model,
    inputs: Vec<ClassifierInput>,
    run: RunOptions,
    cancellation: &CancellationToken,
) -> Result<Vec<Classification>, Error> {
    let max_tokens = match run.truncation {
        Truncation::Truncate => Some(model.config().max_position_embeddings),
        Truncation::Refuse => None,
    };
    let options = ClassificationOptions::default()
        .with_split_special_tokens(true)
        .with_batch_size(1)
        .with_max_tokens(max_tokens)
        .with_function(run.function);
    let request = ClassificationRequest::batch(inputs).with_options(options).with_cancellation(cancellation);
    TextClassifier::new(model)?.classify(&request)
}
