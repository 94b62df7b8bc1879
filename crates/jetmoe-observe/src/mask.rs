//! Which token attends to which.

use serde::Serialize;

use crate::{ObservedModel, ObservedToken};

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
