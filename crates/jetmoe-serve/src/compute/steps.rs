//! Steps of a model over a batch of token ids, in chunks.

use jetmoe_rt::{CancellationToken, Error, Model, StepOutput, TokenBatch};

/// Most tokens of a sequence in a step. A longer one takes several steps, so that the memory of attention does not grow with the
/// square of its length.
pub(crate) const CHUNK: usize = 256;

/// Runs a model over a batch, chunk by chunk, and calls `on_step` with the tokens and the output of each. A model without a cache
/// reads the whole batch in one step.
///
/// # Errors
/// As [`Session::step`](jetmoe_rt::Session::step), or the error of `on_step`.
pub(crate) fn for_each_step(
    model: &Model,
    batch: &TokenBatch,
    cancellation: &CancellationToken,
    mut on_step: impl FnMut(&TokenBatch, &StepOutput) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut session = model.session()?;
    session.set_cancellation(cancellation.clone());
    let length = batch.sequence_length();
    let chunk = if model.task().has_cache() { CHUNK } else { length };
    for begin in (0..length).step_by(chunk.max(1)) {
        let tokens = batch.columns(begin..length.min(begin + chunk));
        let output = session.step(&tokens)?;
        on_step(&tokens, &output)?;
    }
    Ok(())
}
