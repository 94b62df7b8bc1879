//! Which token attends to which.

use jetmoe_artifact::{CacheUpdate, ObservedValue, OutputName};
use jetmoe_rt::{Model, StepOutput, TokenBatch};
use ndarray::{Array3, s};
use serde::Serialize;

use crate::steps::{Steps, not_observed, observed_model, other_shape};
use crate::{ObservedModel, ObservedToken, Result, StepOptions};

/// For every token of a batch the tokens that it attends to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttentionMask {
    /// The model.
    pub model: ObservedModel,
    /// Where the graph was read.
    pub source: MaskSource,
    /// The sequences of the batch.
    pub sequences: Vec<SequenceMask>,
}

/// Where a mask was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskSource {
    /// The bias that all layers add to their scores.
    Bias,
    /// Weights of an attention operator that was added to the copy of the graph, with the sequence lengths that the
    /// operators of all layers read, equal keys and one value per token: the operator masks inside.
    Operator,
}

/// The mask of one sequence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SequenceMask {
    /// All tokens of the sequence, padding included: the columns, and the rows.
    pub tokens: Vec<ObservedToken>,
    /// `visible[query][key]`: whether the token `query` attends to the token `key`. A square; a token of a later step is not
    /// visible. The row of padding is empty of `true`: what padding attends to has no effect.
    pub visible: Vec<Vec<bool>>,
}

/// Runs a batch, and reads which tokens each token attends to. The model is loaded with [`ObservedValue::AttentionMask`].
///
/// # Errors
/// [`Error::NotObserved`](crate::Error::NotObserved) for a model that is not, [`Error::Option`](crate::Error::Option) for steps
/// that the batch cannot be split into, or an error of the model.
pub fn attention_mask(model: &Model, batch: &TokenBatch, options: &StepOptions) -> Result<AttentionMask> {
    const VALUE: ObservedValue = ObservedValue::AttentionMask;
    let observed = observed_model(model, VALUE)?;
    let source = match model.graph().signature().cache_update {
        CacheUpdate::Append => MaskSource::Bias,
        CacheUpdate::InPlace | CacheUpdate::InPlaceByMask => MaskSource::Operator,
    };
    let mut steps = Steps::new(model, batch, options)?;
    let (rows, length) = batch.ids().dim();
    let mut visible = vec![vec![vec![false; length]; length]; rows];
    steps.run(|columns, output| {
        let shape = [rows, columns.len(), columns.end];
        let of_step = visible_keys(model, source, output, shape)?;
        for (row, queries) in visible.iter_mut().enumerate() {
            for (index, query) in columns.clone().enumerate().filter(|(_, query)| batch.mask()[(row, *query)])
            {
                for (key, is_visible) in of_step.slice(s![row, index, ..]).iter().enumerate() {
                    queries[query][key] = *is_visible;
                }
            }
        }
        Ok(())
    })?;
    let sequences = steps.tokens().into_iter().zip(visible);
    let sequences = sequences.map(|(tokens, visible)| SequenceMask { tokens, visible }).collect();
    Ok(AttentionMask { model: observed, source, sequences })
}

/// Whether each new token attends to each token so far, `[batch, new tokens, tokens]`.
fn visible_keys(
    model: &Model,
    source: MaskSource,
    output: &StepOutput,
    shape: [usize; 3],
) -> Result<Array3<bool>> {
    let [rows, queries, keys] = shape;
    let (name, expected) = match source {
        MaskSource::Bias => (OutputName::AttentionBias, vec![rows, 1, queries, keys]),
        MaskSource::Operator => (OutputName::AttendedKeys, vec![rows, queries, keys]),
    };
    let values = output.get(name).ok_or_else(|| not_observed(model, ObservedValue::AttentionMask))?;
    if values.shape() != expected {
        return Err(other_shape(model, name, values.shape(), &expected));
    }
    let is_visible = |value: f32| match source {
        MaskSource::Bias => value == 0.0,
        MaskSource::Operator => value > 0.0,
    };
    let visible = Array3::from_shape_fn(shape, |(row, query, key)| match source {
        MaskSource::Bias => is_visible(values[[row, 0, query, key]]),
        MaskSource::Operator => is_visible(values[[row, query, key]]),
    });
    Ok(visible)
}
