//! Heads on the last hidden state, `[batch, seq, hidden]`: next-token logits `[batch, seq, vocab]`, and class logits
//! `[batch, labels]`. Mirrors `JetMoeForCausalLM` and `JetMoeForSequenceClassification` in transformers'
//! `modeling_jetmoe.py`.

use candle_core::{Device, Tensor};
use candle_nn::{Linear, Module};
use jetmoe_checkpoint::names;

use crate::weights::Weights;
use crate::{Error, Result};

/// The heads that the checkpoint has.
#[derive(Debug)]
pub(crate) struct Heads {
    language_model: Option<Linear>, // hidden → vocab
    score: Option<Linear>,          // hidden → labels
}

impl Heads {
    /// `embedding` is the language-model head if the two are tied.
    pub(crate) fn load(weights: Weights<'_>, embedding: &Tensor) -> Result<Self> {
        let config = weights.config();
        let exists = |name| weights.checkpoint.tensors().contains(name);
        let language_model = if config.tie_word_embeddings {
            Some(Linear::new(embedding.clone(), None))
        } else if exists(names::LM_HEAD) {
            Some(weights.linear(names::LM_HEAD, config.vocab_size, config.hidden_size)?)
        } else {
            None
        };
        let score = if exists(names::SCORE) {
            Some(weights.linear(names::SCORE, config.num_labels(), config.hidden_size)?)
        } else {
            None
        };
        Ok(Heads { language_model, score })
    }

    pub(crate) fn logits(&self, last_hidden_state: &Tensor) -> Result<Tensor> {
        let head = self.language_model.as_ref().ok_or(Error::MissingHead { head: names::LM_HEAD })?;
        head.forward(last_hidden_state).map_err(Error::at("the language-model head")) // [batch, seq, vocab]
    }

    pub(crate) fn class_logits(
        &self,
        last_hidden_state: &Tensor,
        input_ids: &[i64],
        pad_token_id: Option<u32>,
    ) -> Result<Tensor> {
        let head = self.score.as_ref().ok_or(Error::MissingHead { head: names::SCORE })?;
        let place = "the classification head";
        let (batch, sequence, hidden) = last_hidden_state.dims3().map_err(Error::at(place))?;
        let last = last_tokens(input_ids, batch, sequence, pad_token_id)?;
        let score = || {
            let rows = Tensor::new(last, &Device::Cpu)?; // [batch]
            let tokens = last_hidden_state.reshape((batch * sequence, hidden))?; // [batch * seq, hidden]
            head.forward(&tokens.index_select(&rows, 0)?) // [batch, labels]
        };
        score().map_err(Error::at(place))
    }
}

/// Row of every sequence's last token in the flattened batch. Padding may be on either side; for a sequence of padding
/// only it is the first token, as in transformers.
fn last_tokens(
    input_ids: &[i64],
    batch: usize,
    sequence: usize,
    pad_token_id: Option<u32>,
) -> Result<Vec<u32>> {
    if batch == 0 || sequence == 0 {
        return Err(Error::EmptyInputs { batch_size: batch, sequence_length: sequence });
    }
    if input_ids.len() != batch * sequence {
        return Err(Error::InputLength {
            input: "input_ids",
            rows: batch,
            columns: sequence,
            found: input_ids.len(),
        });
    }
    let Some(pad_token_id) = pad_token_id.map(i64::from) else {
        return match batch {
            1 => Ok(vec![sequence as u32 - 1]),
            batch_size => Err(Error::NoPaddingToken { batch_size }),
        };
    };
    let last_in = |ids: &[i64]| ids.iter().rposition(|id| *id != pad_token_id).unwrap_or(0);
    Ok(input_ids
        .chunks_exact(sequence)
        .enumerate()
        .map(|(row, ids)| (row * sequence + last_in(ids)) as u32)
        .collect())
}

#[cfg(test)]
mod tests;
