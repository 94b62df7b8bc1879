//! Runs a classifier, in batches of bounded memory.

use jetmoe_rt::{
    CancellationToken, Classification, ClassificationFunction, ClassificationOptions, ClassificationRequest,
    ClassifierInput, Error, Model, Profile, TextClassifier,
};

/// Most bytes of the texts of a batch, each counted as the longest. A token has at least about a byte, so this bounds the tokens
/// of a step and with them its memory.
const BATCH_BYTES: usize = 8192;

/// Most inputs of a batch.
const BATCH: usize = 16;

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
        .with_batch_size(batch_size(model, &inputs))
        .with_max_tokens(max_tokens)
        .with_function(run.function);
    let request = ClassificationRequest::batch(inputs).with_options(options).with_cancellation(cancellation);
    TextClassifier::new(model)?.classify(&request)
}

/// Inputs that share a step. A step of a native graph computes the same bits for an input alone and with others; with another
/// graph each input has a step of its own, so that its result does not depend on the others.
fn batch_size(model: &Model, inputs: &[ClassifierInput]) -> usize {
    if model.profile() != Some(Profile::Native) {
        return 1;
    }
    let bytes = |input: &ClassifierInput| input.text().len() + input.text_pair().map_or(0, str::len);
    let longest = inputs.iter().map(bytes).max().unwrap_or(0).max(1);
    (BATCH_BYTES / longest).clamp(1, BATCH)
}
