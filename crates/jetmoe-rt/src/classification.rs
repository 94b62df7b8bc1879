use jetmoe_artifact::Task;
use ndarray::ArrayView1;

use crate::{Error, Model, Result, TokenBatch};

/// How texts are classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassificationOptions {
    /// Longest text in tokens, special ones included, at least 1: what is beyond it is cut off at the end. `None`, the
    /// default, cuts nothing, and a text that is longer than the model's positions is an error.
    pub max_tokens: Option<usize>,
    /// Texts that are computed together, at least 1; 16 by default. A model without a padding token always takes them
    /// one by one, because it finds the end of a padded text by that token.
    pub batch_size: usize,
}

impl Default for ClassificationOptions {
    fn default() -> Self {
        ClassificationOptions { max_tokens: None, batch_size: 16 }
    }
}

impl ClassificationOptions {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::Option`] names the first such value.
    pub fn validate(&self) -> Result<()> {
        for (option, value) in [("max_tokens", self.max_tokens), ("batch_size", Some(self.batch_size))] {
            if value == Some(0) {
                return Err(Error::Option { option, found: "0".to_owned(), expected: "at least 1" });
            }
        }
        Ok(())
    }
}

/// The class of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Name of the most probable class; of equally probable ones the first.
    pub label: String,
    /// Its number.
    pub label_index: usize,
    /// Its probability: the softmax of the logits, from 0 to 1.
    pub probability: f32,
    /// What the model computed for every class, in the order of the model's labels.
    pub logits: Vec<f32>,
}

/// Classifies texts.
#[derive(Debug, Clone)]
pub struct TextClassifier {
    model: Model,
}

impl TextClassifier {
    /// Classifies with a model, whose weights are shared.
    ///
    /// # Errors
    /// [`Error::WrongTask`] for a model that does not classify, [`Error::NoTokenizer`] for one without a tokenizer.
    pub fn new(model: &Model) -> Result<Self> {
        model.require_task(Task::SequenceClassification)?;
        model.require_tokenizer()?;
        Ok(TextClassifier { model: model.clone() })
    }

    /// Classifies every text; results are in the texts' order. Texts of similar length are computed together.
    ///
    /// # Errors
    /// * [`Error::Option`]: a value in `options` that makes no sense.
    /// * [`Error::EmptyPrompt`]: a text that is empty.
    /// * [`Error::TooLong`]: a text with more tokens than the model has positions, after cutting.
    /// * [`Error::Checkpoint`]: what the tokenizer refuses.
    /// * [`Error::Backend`]: the backend failed. [`Error::Logits`]: it computed NaN.
    /// * [`Error::Shape`]: the graph returns another number of classes than the configuration names.
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
                return Err(Error::Shape {
                    tensor: "logits".to_owned(),
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
        if ids.len() > limit { Err(Error::TooLong { tokens: ids.len(), limit }) } else { Ok(ids) }
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::fake::{self, FakeModel};

    /// Logits that depend on every token of a text.
    fn hashed() -> FakeModel {
        FakeModel::classifier(|seen| fake::hashed(seen, 2))
    }

    fn in_batches_of(batch_size: usize) -> ClassificationOptions {
        ClassificationOptions { batch_size, ..ClassificationOptions::default() }
    }

    fn classify(
        model: FakeModel,
        texts: &[&str],
        options: &ClassificationOptions,
    ) -> Result<Vec<Classification>> {
        TextClassifier::new(&model.load()).unwrap().classify(texts, options)
    }

    #[test]
    fn the_most_probable_class_is_named_with_its_softmax() {
        let model = FakeModel::classifier(|_| vec![1.0, 3.0]);
        let result =
            classify(model, &["In the beginning"], &ClassificationOptions::default()).unwrap().remove(0);
        assert_eq!((result.label.as_str(), result.label_index), ("New Testament", 1));
        assert_eq!(result.logits, [1.0, 3.0]);
        let expected = 1.0 / (1.0 + (-2.0_f32).exp());
        assert!((result.probability - expected).abs() <= f32::EPSILON);
    }

    #[test]
    fn a_text_gets_the_same_class_alone_and_in_a_batch() {
        let texts =
            ["Moses", "And the LORD said unto Moses", "The sons of Levi", "Blessed are the meek", "Amen"];
        let alone = classify(hashed(), &texts, &in_batches_of(1)).unwrap();
        for batch_size in [2, 3, 16] {
            assert_eq!(classify(hashed(), &texts, &in_batches_of(batch_size)).unwrap(), alone);
        }
        assert_ne!(alone[0].logits, alone[1].logits);
    }

    #[test]
    fn without_a_padding_token_texts_are_computed_one_by_one() {
        let mut model = hashed();
        model.config.pad_token_id = None;
        let steps = Arc::clone(&model.steps);
        classify(model, &["a", "b", "c"], &in_batches_of(8)).unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_long_text_is_cut_at_its_end_when_asked_for() {
        let mut model = FakeModel::classifier(|seen| vec![seen.len() as f32, seen[0] as f32]);
        model.config.max_position_embeddings = 6;
        let text = "And the LORD spake unto Moses, saying";
        let options = ClassificationOptions { max_tokens: Some(4), ..ClassificationOptions::default() };
        // 4 tokens, the first of them <s>
        assert_eq!(classify(model, &[text], &options).unwrap()[0].logits, [4.0, 1.0]);
    }

    #[test]
    fn a_text_longer_than_the_positions_is_an_error() {
        for max_tokens in [None, Some(7)] {
            let mut model = hashed();
            model.config.max_position_embeddings = 6;
            let options = ClassificationOptions { max_tokens, ..ClassificationOptions::default() };
            let error = classify(model, &["And the LORD spake unto Moses, saying"], &options).unwrap_err();
            assert!(matches!(error, Error::TooLong { tokens: 7.., limit: 6 }), "{error}");
        }
    }

    #[test]
    fn an_empty_text_is_refused_by_number_and_no_text_gives_no_class() {
        let error = classify(hashed(), &["a", ""], &ClassificationOptions::default()).unwrap_err();
        assert!(matches!(error, Error::EmptyPrompt { index: 1 }));
        assert_eq!(classify(hashed(), &[], &ClassificationOptions::default()).unwrap(), []);
    }

    #[test]
    fn options_of_zero_are_refused_by_name() {
        let cut = ClassificationOptions { max_tokens: Some(0), ..ClassificationOptions::default() };
        for (options, name) in [(in_batches_of(0), "batch_size"), (cut, "max_tokens")] {
            let error = classify(hashed(), &["a"], &options).unwrap_err();
            assert!(matches!(error, Error::Option { option, .. } if option == name));
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let model = FakeModel::classifier(|_| vec![f32::NAN, 0.0]);
        let error = classify(model, &["a"], &ClassificationOptions::default()).unwrap_err();
        assert!(error.to_string().contains("text 0"), "{error}");
    }

    #[test]
    fn another_number_of_classes_than_the_configuration_names_is_an_error() {
        let model = FakeModel::classifier(|_| vec![0.0, 1.0, 2.0]);
        let error = classify(model, &["a"], &ClassificationOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }));
    }

    #[test]
    fn a_language_model_or_a_model_without_a_tokenizer_does_not_classify() {
        let language_model = FakeModel::scripted(1, vec![]).load();
        assert!(matches!(TextClassifier::new(&language_model), Err(Error::WrongTask { .. })));
        let mut model = hashed();
        model.tokenizer = None;
        assert!(matches!(TextClassifier::new(&model.load()), Err(Error::NoTokenizer)));
    }
}
