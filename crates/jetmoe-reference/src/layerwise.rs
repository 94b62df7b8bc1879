//! The model run one layer at a time, for checkpoints that do not fit into memory as float32.

use candle_core::Tensor;
use jetmoe_checkpoint::{Checkpoint, names};

use crate::inputs::Inputs;
use crate::layer::DecoderLayer;
use crate::mask::attention_bias;
use crate::model::embed;
use crate::observer::{ActivationHook, Observer};
use crate::rotary::Rotary;
use crate::weights::Weights;
use crate::{Error, Result};

/// Runs all sequences through one layer at a time. Memory holds one layer in float32 (1.4 GB for JetMoE-8B) and one
/// hidden state per token, whatever the size of the checkpoint.
///
/// ```no_run
/// # use jetmoe_reference::{LayerwiseReference, Observer};
/// struct Rows(usize);
///
/// impl Observer for Rows {
///     fn observe(&mut self, tensor: &str, expert: Option<usize>, rows: &[f32]) {
///         self.0 += rows.len();
///     }
/// }
///
/// let checkpoint = jetmoe_checkpoint::Checkpoint::open("path/to/jetmoe-8b")?;
/// let mut model = LayerwiseReference::new(&checkpoint, &[vec![1, 306, 626]])?;
/// let mut rows = Rows(0);
/// while let Some(layer) = model.next_layer(&mut rows)? {
///     println!("layer {layer}: {} inputs so far", rows.0);
/// }
/// let states = model.last_hidden_states(&mut rows)?; // one of [1, 3, hidden_size]
/// # Ok::<(), jetmoe_reference::Error>(())
/// ```
pub struct LayerwiseReference<'a> {
    weights: Weights<'a>,
    rotary: Rotary,
    /// `[1, seq, hidden]` of every sequence, before the next layer.
    states: Vec<Tensor>,
    next: usize,
}

impl<'a> LayerwiseReference<'a> {
    /// Embeds sequences of token ids.
    ///
    /// # Errors
    /// An empty sequence, an id beyond the vocabulary, or a weight that is missing or has another shape than in the
    /// configuration.
    pub fn new(checkpoint: &'a Checkpoint, sequences: &[Vec<u32>]) -> Result<Self> {
        let weights = Weights { checkpoint, overrides: None };
        let config = checkpoint.config();
        let embedding = weights.tensor(names::EMBEDDING, &[config.vocab_size, config.hidden_size])?;
        let embedded = sequences.iter().map(|sequence| {
            let ids: Vec<i64> = sequence.iter().map(|id| i64::from(*id)).collect();
            let (mask, positions) = (vec![1; ids.len()], positions(ids.len()));
            let inputs = Inputs {
                input_ids: &ids,
                attention_mask: &mask,
                position_ids: &positions,
                batch_size: 1,
                sequence_length: ids.len(),
            };
            inputs.check(config, 0)?;
            embed(&embedding, &inputs).map_err(Error::at("the embedding")) // [1, seq, hidden]
        });
        Ok(LayerwiseReference {
            weights,
            states: embedded.collect::<Result<_>>()?,
            rotary: Rotary::new(&config.rope, config.kv_channels)
                .map_err(Error::at("the rotary embedding"))?,
            next: 0,
        })
    }

    /// Loads the next layer, runs all sequences through it and drops its weights. Returns the layer's index; `None` after
    /// the last layer.
    ///
    /// # Errors
    /// A weight that is missing or has another shape than in the configuration.
    pub fn next_layer(&mut self, observer: &mut dyn Observer) -> Result<Option<usize>> {
        let index = self.next;
        if index == self.weights.config().num_hidden_layers {
            return Ok(None);
        }
        let layer = DecoderLayer::load(self.weights, index)?;
        for state in &mut self.states {
            let mut run = || {
                let sequence = state.dim(1)?;
                let position_ids = Tensor::from_vec(positions(sequence), (1, sequence), state.device())?; // [1, seq]
                let rotation = self.rotary.at(&position_ids)?;
                let bias = attention_bias(&position_ids.ones_like()?, 0)?; // [1, 1, 1, seq, seq]
                layer.forward(state, &rotation, &bias, None, &mut ActivationHook::new(observer))
            };
            let output = run().map_err(Error::at(format!("layer {index}")))?;
            *state = output.hidden_state; // [1, seq, hidden]
            observer.sequence_done();
        }
        self.next += 1;
        Ok(Some(index))
    }

    /// Runs the remaining layers and the final norm: `[1, seq, hidden]` of every sequence. `observer` receives them as the
    /// inputs of the language-model head.
    ///
    /// # Errors
    /// As [`LayerwiseReference::next_layer`].
    pub fn last_hidden_states(mut self, observer: &mut dyn Observer) -> Result<Vec<Tensor>> {
        while self.next_layer(observer)?.is_some() {}
        let config = self.weights.config();
        let final_norm = self.weights.norm(names::FINAL_NORM, config.rms_norm_eps)?;
        let head = if config.tie_word_embeddings { names::EMBEDDING } else { names::LM_HEAD };
        let mut last = Vec::with_capacity(self.states.len());
        for state in &self.states {
            let mut run = || {
                let normed = final_norm.forward(state)?; // [1, seq, hidden]
                ActivationHook::new(observer).call(head, None, &normed)?;
                Ok(normed)
            };
            last.push(run().map_err(Error::at("the final norm"))?);
            observer.sequence_done();
        }
        Ok(last)
    }
}

fn positions(sequence: usize) -> Vec<i64> {
    (0..sequence as i64).collect()
}
