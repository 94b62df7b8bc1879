//! Classification of texts and pairs of texts.

mod request;

use jetmoe_artifact::{OutputName, Task};
use jetmoe_checkpoint::{ModelConfig, ProblemType};
use jetmoe_text::EncodedInput;
use ndarray::ArrayView1;

pub use self::request::{ClassificationRequest, ClassifierInput};
use crate::error::at_least_one;
use crate::{Error, Model, Result, TokenBatch};

/// What turns the logits of a classifier into scores, by the names of transformers (`function_to_apply`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum ClassificationFunction {
    /// The scores are probabilities of classes that exclude each other; their sum is 1.
    Softmax,
    /// Each score is the probability of its class alone.
    Sigmoid,
    /// The scores are the logits.
    None,
}

impl ClassificationFunction {
    /// The function of a model, as transformers 5 chooses it (`pipelines/text_classification.py`, `postprocess`):
    ///
    /// | `problem_type` in `config.json` | one label | more labels |
    /// | --- | --- | --- |
    /// | `regression` | none | none |
    /// | `multi_label_classification` | sigmoid | sigmoid |
    /// | absent | sigmoid | softmax |
    /// | `single_label_classification` | not accepted | softmax |
    pub fn of_config(config: &ModelConfig) -> Self {
        match (config.problem_type, config.num_labels()) {
            (Some(ProblemType::Regression), _) => ClassificationFunction::None,
            (Some(ProblemType::MultiLabelClassification), _) | (_, 1) => ClassificationFunction::Sigmoid,
            _ => ClassificationFunction::Softmax,
        }
    }

    /// The scores of logits, in float64 and rounded to float32.
    fn apply(self, logits: ArrayView1<'_, f32>) -> Vec<f32> {
        match self {
            ClassificationFunction::None => logits.to_vec(),
            ClassificationFunction::Sigmoid => {
                logits.iter().map(|logit| (1.0 / (1.0 + f64::from(-logit).exp())) as f32).collect()
            }
            ClassificationFunction::Softmax => {
                let normalizer = crate::log_sum_exp(logits);
                logits.iter().map(|logit| (f64::from(*logit) - normalizer).exp() as f32).collect()
            }
        }
    }
}

/// Options of a classification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassificationOptions {
    /// Truncates every input to this many tokens, including special ones, as
    /// [`Tokenizer::encode_input`](crate::Tokenizer::encode_input) does; at least 1. `None`, the default, does not truncate: an
    /// input with more tokens than the model has positions is an error.
    pub max_tokens: Option<usize>,
    /// Inputs per batch, at least 1; 16 by default. Always 1 for a model without a padding token, because the end of a
    /// padded text is found by that token.
    pub batch_size: usize,
    /// What turns logits into scores. `None`, the default, takes [`ClassificationFunction::of_config`].
    pub function: Option<ClassificationFunction>,
    /// Whether the text of special tokens, such as `</s>`, in inputs is plain text. Off by default, as in transformers: it is a
    /// special token.
    pub split_special_tokens: bool,
}

impl Default for ClassificationOptions {
    fn default() -> Self {
        ClassificationOptions {
            max_tokens: None,
            batch_size: 16,
            function: None,
            split_special_tokens: false,
        }
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

    /// Sets [`ClassificationOptions::function`].
    #[must_use]
    pub fn with_function(mut self, function: impl Into<Option<ClassificationFunction>>) -> Self {
        self.function = function.into();
        self
    }

    /// Sets [`ClassificationOptions::split_special_tokens`].
    #[must_use]
    pub fn with_split_special_tokens(mut self, split_special_tokens: bool) -> Self {
        self.split_special_tokens = split_special_tokens;
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

/// The classes of one input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Classification {
    /// Name of the class with the highest score; the first of equal ones.
    pub label: String,
    /// Its index.
    pub label_index: usize,
    /// Its score.
    pub score: f32,
    /// Scores of all classes, in the order of the model's labels. `function` says what they are.
    pub scores: Vec<f32>,
    /// Logits of all classes, in the same order.
    pub logits: Vec<f32>,
    /// What turned the logits into scores.
    pub function: ClassificationFunction,
    /// Number of tokens that were read, including special ones.
    pub tokens: usize,
    /// Whether the input had more tokens, see [`ClassificationOptions::max_tokens`].
    pub truncated: bool,
}

/// Classifies texts and pairs of texts.
///
/// Cloning shares the weights. A classifier is `Send` and `Sync`: any number of threads can use it.
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

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Classifies every input; results are in the order of the inputs. Inputs of similar length share a batch.
    ///
    /// # Errors
    /// Those of [`TextClassifier::check`], before anything is computed, and:
    ///
    /// * [`Error::Backend`]: the backend failed. [`Error::Cancelled`]: the request was cancelled.
    /// * [`Error::Logits`]: the logits of an input are not finite.
    /// * [`Error::OutputShape`]: the graph has another number of classes than the configuration.
    pub fn classify(&self, request: &ClassificationRequest) -> Result<Vec<Classification>> {
        let encoded = self.encode(request)?.into_iter().collect::<Result<Vec<_>>>()?;
        self.classify_encoded(request, encoded.into_iter().map(Ok).collect())?.into_iter().collect()
    }

    /// As [`TextClassifier::classify`], with a result for each input: one that cannot be classified does not lose the others.
    /// After a cancellation those that were not classified have [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::Option`] for an invalid option, [`Error::Backend`] or [`Error::OutputShape`].
    pub fn classify_each(&self, request: &ClassificationRequest) -> Result<Vec<Result<Classification>>> {
        let encoded = self.encode(request)?;
        self.classify_encoded(request, encoded)
    }

    /// Rejects a request that cannot run, before anything is computed.
    ///
    /// # Errors
    /// * [`Error::Option`]: an invalid value in the options.
    /// * [`Error::EmptyPrompt`]: an empty text, or a pair of empty texts.
    /// * [`Error::TooLong`]: an input with more tokens than the model has positions, after truncation.
    /// * [`Error::TextTooLong`]: an input with more bytes than [`Model::max_text_bytes`], before truncation.
    /// * [`Error::Text`]: a text that the tokenizer cannot encode.
    pub fn check(&self, request: &ClassificationRequest) -> Result<()> {
        self.encode(request)?.into_iter().try_for_each(|encoded| encoded.map(drop))
    }

    fn encode(&self, request: &ClassificationRequest) -> Result<Vec<Result<EncodedInput>>> {
        request.options.validate()?;
        let tokenizer = self.model.require_tokenizer()?;
        let limit = self.model.config().max_position_embeddings;
        let inputs = request.inputs.iter().enumerate();
        Ok(inputs
            .map(|(index, input)| {
                let (text, text_pair) = (input.text(), input.text_pair());
                if text.is_empty() && text_pair.is_none_or(str::is_empty) {
                    return Err(Error::EmptyPrompt { index });
                }
                let bytes = text.len().saturating_add(text_pair.map_or(0, str::len));
                self.model.check_text_bytes(index, bytes)?;
                let max_tokens = request.options.max_tokens;
                let encoded = if request.options.split_special_tokens {
                    tokenizer.encode_input_split(text, text_pair, max_tokens)?
                } else {
                    tokenizer.encode_input(text, text_pair, max_tokens)?
                };
                match encoded.ids.len() {
                    0 => Err(Error::EmptyPrompt { index }),
                    tokens if tokens > limit => Err(Error::TooLong { index, tokens, limit }),
                    _ => Ok(encoded),
                }
            })
            .collect())
    }

    fn classify_encoded(
        &self,
        request: &ClassificationRequest,
        encoded: Vec<Result<EncodedInput>>,
    ) -> Result<Vec<Result<Classification>>> {
        let config = self.model.config();
        let function = request.options.function.unwrap_or_else(|| ClassificationFunction::of_config(config));
        let batch_size = if config.pad_token_id.is_some() { request.options.batch_size } else { 1 };
        let mut by_length: Vec<(usize, &EncodedInput)> = encoded
            .iter()
            .enumerate()
            .filter_map(|(index, encoded)| Some((index, encoded.as_ref().ok()?)))
            .collect();
        by_length.sort_by_key(|(_, encoded)| encoded.ids.len());
        let mut classified: Vec<Option<Result<Classification>>> = encoded.iter().map(|_| None).collect();
        for inputs in by_length.chunks(batch_size) {
            let sequences: Vec<&[u32]> = inputs.iter().map(|(_, encoded)| encoded.ids.as_slice()).collect();
            let batch = TokenBatch::left_padded(&sequences, config.pad_token_id.unwrap_or(0))?;
            let mut session = self.model.session()?;
            session.set_cancellation(request.cancellation.clone());
            let output = match session.step(&batch) {
                Err(Error::Cancelled) => break,
                output => output?,
            };
            let logits = output.class_logits()?; // [batch, labels]
            let expected = [inputs.len(), config.num_labels()];
            if logits.shape() != expected {
                return Err(Error::OutputShape {
                    name: OutputName::Logits,
                    expected: expected.to_vec(),
                    found: logits.shape().to_vec(),
                });
            }
            for ((index, encoded), logits) in inputs.iter().zip(logits.rows()) {
                classified[*index] = Some(self.classification(*index, encoded, logits, function));
            }
        }
        let results =
            classified.into_iter().zip(encoded).map(|(classified, encoded)| match (classified, encoded) {
                (_, Err(error)) => Err(error),
                (Some(classified), Ok(_)) => classified,
                (None, Ok(_)) => Err(Error::Cancelled),
            });
        Ok(results.collect())
    }

    /// `logits`: `[labels]`
    fn classification(
        &self,
        index: usize,
        encoded: &EncodedInput,
        logits: ArrayView1<'_, f32>,
        function: ClassificationFunction,
    ) -> Result<Classification> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::Logits {
                backend: self.model.backend(),
                problem: format!("those of text {index} are not all finite: {logits}"),
            });
        }
        // the order of the logits is that of the scores, which may round to the same value
        let mut best = (0, f32::NEG_INFINITY);
        for (label_index, logit) in logits.iter().enumerate() {
            if *logit > best.1 {
                best = (label_index, *logit);
            }
        }
        let (label_index, _) = best;
        let scores = function.apply(logits);
        let (Some(label), Some(score)) =
            (self.model.config().labels.get(label_index), scores.get(label_index))
        else {
            return Err(Error::Logits {
                backend: self.model.backend(),
                problem: format!("those of text {index} belong to no label"),
            });
        };
        Ok(Classification {
            label: label.clone(),
            label_index,
            score: *score,
            scores,
            logits: logits.to_vec(),
            function,
            tokens: encoded.ids.len(),
            truncated: encoded.is_truncated(),
        })
    }
}

#[cfg(test)]
mod tests;
