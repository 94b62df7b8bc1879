use std::time::Duration;

use jetmoe_artifact::OutputName;
use jetmoe_checkpoint::ModelConfig;
use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2, ArrayView3, Axis, Ix2, Ix3, concatenate, s};

use crate::engine::{GraphSession, StepInputs, TensorMap};
use crate::{Error, Result, TokenBatch};

/// One batch of sequences: its cache, and which of its tokens count.
#[derive(Debug)]
pub struct Session {
    graph: Box<dyn GraphSession>,
    config: ModelConfig,
    has_cache: bool,
    /// `[batch, tokens so far]`
    mask: Option<Array2<bool>>,
}

impl Session {
    pub(crate) fn new(graph: Box<dyn GraphSession>, config: ModelConfig, has_cache: bool) -> Self {
        Session { graph, config, has_cache, mask: None }
    }

    /// Runs the model over new tokens of every sequence and appends them to the cache. A task without a cache sees
    /// only the tokens of this step.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`], [`Error::TooLong`], [`Error::Shape`] for another batch size than before, or what
    /// the runtime reports. The session is then as it was before.
    pub fn step(&mut self, tokens: &TokenBatch) -> Result<StepOutput> {
        if let Some(((row, column), id)) =
            tokens.ids().indexed_iter().find(|(_, id)| **id as usize >= self.config.vocab_size)
        {
            return Err(Error::TokenOutOfRange { id: *id, row, column, vocab_size: self.config.vocab_size });
        }
        let mask = match &self.mask {
            Some(past) if self.has_cache => concatenate(Axis(1), &[past.view(), tokens.mask().view()])
                .map_err(|_| Error::Shape {
                    tensor: "input_ids".to_owned(),
                    expected: vec![past.nrows(), tokens.sequence_length()],
                    found: tokens.ids().shape().to_vec(),
                })?,
            _ => tokens.mask().clone(),
        };
        let positions = positions(&mask);
        let longest = positions.iter().max().map_or(0, |last| last + 1) as usize;
        if longest > self.config.max_position_embeddings {
            return Err(Error::TooLong { tokens: longest, limit: self.config.max_position_embeddings });
        }
        let past_length = mask.ncols() - tokens.sequence_length();
        let tensors = self.graph.run(&StepInputs {
            input_ids: tokens.ids().mapv(i64::from),
            attention_mask: mask.mapv(i64::from),
            position_ids: positions.slice(s![.., past_length..]).to_owned(),
        })?;
        self.mask = Some(mask);
        Ok(StepOutput { tensors })
    }

    /// Tokens in the cache per sequence, padding included.
    pub fn past_length(&self) -> usize {
        match &self.mask {
            Some(mask) if self.has_cache => mask.ncols(),
            _ => 0,
        }
    }

    /// How long the last step was in the runtime itself, see [`GraphSession::engine_time`].
    pub fn engine_time(&self) -> Option<Duration> {
        self.graph.engine_time()
    }

    /// A copy of the cache, see [`GraphSession::cache`].
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn cache(&self) -> Result<TensorMap> {
        self.graph.cache()
    }
}

/// Position of every token: the number of tokens before it that count; 0 for padding in front.
fn positions(mask: &Array2<bool>) -> Array2<i64> {
    let mut positions = mask.mapv(i64::from);
    for mut row in positions.rows_mut() {
        let mut seen = 0;
        for position in &mut row {
            seen += *position;
            *position = (seen - 1).max(0);
        }
    }
    positions
}

/// What one step computed.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutput {
    tensors: TensorMap,
}

impl StepOutput {
    /// Any output by its name; `None` where the graph does not have it.
    pub fn get(&self, name: OutputName) -> Option<&ArrayD<f32>> {
        self.tensors.get(&name)
    }

    /// Every output by name.
    pub fn tensors(&self) -> &TensorMap {
        &self.tensors
    }

    /// Next-token logits of every new token, `[batch, tokens, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::MissingOutput`] for a task that has none.
    pub fn logits(&self) -> Result<ArrayView3<'_, f32>> {
        self.view(OutputName::Logits)?
            .into_dimensionality::<Ix3>()
            .map_err(|_| self.missing(OutputName::Logits))
    }

    /// Next-token logits of a sequence's last token, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`StepOutput::logits`].
    pub fn last_logits(&self, row: usize) -> Result<ArrayView1<'_, f32>> {
        let logits = self.logits()?;
        let last = logits.shape()[1] - 1;
        Ok(logits.slice_move(s![row, last, ..]))
    }

    /// Class logits, `[batch, labels]`.
    ///
    /// # Errors
    /// [`Error::MissingOutput`] for a task that has none.
    pub fn class_logits(&self) -> Result<ArrayView2<'_, f32>> {
        self.view(OutputName::Logits)?
            .into_dimensionality::<Ix2>()
            .map_err(|_| self.missing(OutputName::Logits))
    }

    /// Hidden state after the final norm, `[batch, tokens, hidden_size]`.
    ///
    /// # Errors
    /// [`Error::MissingOutput`] for a task that has none.
    pub fn last_hidden_state(&self) -> Result<ArrayView3<'_, f32>> {
        let name = OutputName::LastHiddenState;
        self.view(name)?.into_dimensionality::<Ix3>().map_err(|_| self.missing(name))
    }

    fn view(&self, name: OutputName) -> Result<ndarray::ArrayViewD<'_, f32>> {
        self.tensors.get(&name).map(|tensor| tensor.view()).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: OutputName) -> Error {
        Error::MissingOutput { name, available: self.tensors.keys().map(ToString::to_string).collect() }
    }
}
