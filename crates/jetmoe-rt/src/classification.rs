//! Classification of texts.

use jetmoe_artifact::{OutputName, Task};
use ndarray::ArrayView1;

use crate::error::at_least_one;
use crate::{Error, Model, Result, TokenBatch};

/// Options of a classification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassificationOptions {
    /// Truncates every text to this many tokens, including special ones; at least 1. `None`, the default, does not
    /// truncate: a text with more tokens than the model has positions is an error.
    pub max_tokens: Option<usize>,
    /// Texts per batch, at least 1; 16 by default. Always 1 for a model without a padding token, because the end of a
    /// padded text is found by that token.
    pub batch_size: usize,
}

impl Default for ClassificationOptions {
    fn default() -> Self {
        ClassificationOptions { max_tokens: None, batch_size: 16 }
    }
}

impl ClassificationOptions {
    /// Sets [`ClassificationOptions::max_tokens`].
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: impl Into<Option<usize>>) -> Self {
        self.max_tokens = max_tokens.into();
        self
    }

    /// Sets [`ClassificationOptions::batch_size`].
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Option`] for the first invalid value.
    pub fn validate(&self) -> Result<()> {
        at_least_one("max_tokens", self.max_tokens.unwrap_or(1))?;
        at_least_one("batch_size", self.batch_size)
    }
}

/// The class of one text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Classification {
    /// Name of the most probable class; the first of equally probable ones.
    pub label: String,
    /// Its index.
    pub label_index: usize,
    /// Its probability: the softmax of the logits, from 0 to 1.
    pub probability: f32,
    /// Logits of all classes, in the order of the model's labels.
    pub logits: Vec<f32>,
}

/// Classifies texts.
#[derive(Debug, Clone)]
pub struct TextClassifier {
    model: Model,
}

impl TextClassifier {
    /// A classifier for a model; the weights are shared.
    ///
    /// # Errors
    /// [`Error::WrongTask`] for a model that does not classify, [`Error::NoTokenizer`] for one without a tokenizer.
    pub fn new(model: &Model) -> Result<Self> {
        model.require_task(Task::SequenceClassification)?;
        model.require_tokenizer()?;
        Ok(TextClassifier { model: model.clone() })
    }

    /// Classifies every text; results are in the order of the texts. Texts of similar length share a batch.
    ///
    /// # Errors
    /// * [`Error::Option`]: an invalid value in `options`.
    /// * [`Error::EmptyPrompt`]: an empty text.
    /// * [`Error::TooLong`]: a text with more tokens than the model has positions, after truncation.
    /// * [`Error::Text`]: a text that the tokenizer cannot encode.
    /// * [`Error::Backend`]: the backend failed. [`Error::Logits`]: the logits are not finite.
    /// * [`Error::OutputShape`]: the graph has another number of classes than the configuration.
    pub fn classify<S: AsRef<str>>(
        &self,
        texts: &[S],
        options: &ClassificationOptions,
    ) -> Result<Vec<Classification>> {
        options.validate()?;
        let encoded = texts
            .iter()
            .enumerate()
            .map(|(index, text)| self.encode(index, text.as_ref(), options.max_tokens))
            .collect::<Result<Vec<_>>>()?;
        let config = self.model.config();
        let batch_size = if config.pad_token_id.is_some() { options.batch_size } else { 1 };
        let mut by_length: Vec<usize> = (0..encoded.len()).collect();
        by_length.sort_by_key(|index| encoded[*index].len());
        let mut results: Vec<(usize, Classification)> = Vec::with_capacity(encoded.len());
        for indices in by_length.chunks(batch_size) {
            let sequences: Vec<&[u32]> = indices.iter().map(|index| encoded[*index].as_slice()).collect();
            let batch = TokenBatch::left_padded(&sequences, config.pad_token_id.unwrap_or(0))?;
            let output = self.model.session()?.step(&batch)?;
            let logits = output.class_logits()?; // [batch, labels]
            let expected = [indices.len(), config.num_labels()];
            if logits.shape() != expected {
                return Err(Error::OutputShape {
                    name: OutputName::Logits,
                    expected: expected.to_vec(),
                    found: logits.shape().to_vec(),
                });
            }
            for (index, logits) in indices.iter().zip(logits.rows()) {
                results.push((*index, self.classification(*index, logits)?));
            }
        }
        results.sort_by_key(|(index, _)| *index);
        Ok(results.into_iter().map(|(_, classification)| classification).collect())
    }

    fn encode(&self, index: usize, text: &str, max_tokens: Option<usize>) -> Result<Vec<u32>> {
        if text.is_empty() {
            return Err(Error::EmptyPrompt { index });
        }
        let mut ids = self.model.require_tokenizer()?.encode(text, true)?;
        if let Some(max_tokens) = max_tokens {
            ids.truncate(max_tokens);
        }
        let limit = self.model.config().max_position_embeddings;
        if ids.len() > limit { Err(Error::TooLong { index, tokens: ids.len(), limit }) } else { Ok(ids) }
    }

    /// `logits`: `[labels]`
    fn classification(&self, index: usize, logits: ArrayView1<'_, f32>) -> Result<Classification> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::Logits {
                backend: self.model.backend(),
                problem: format!("those of text {index} are not all finite: {logits}"),
            });
        }
        let mut best = (0, f32::NEG_INFINITY);
        for (label_index, logit) in logits.iter().enumerate() {
            if *logit > best.1 {
                best = (label_index, *logit);
            }
        }
        let (label_index, highest) = best;
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
        Ok(Classification {
            label: self.model.config().labels.get(label_index).cloned().unwrap_or_default(),
            label_index,
            probability: (1.0 / sum) as f32,
            logits: logits.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests;
