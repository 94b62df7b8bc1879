//! Quality of a classifier on labelled texts.

use std::collections::BTreeSet;
use std::path::Path;

use jetmoe_rt::{
    Classification, ClassificationFunction, ClassificationOptions, ClassificationRequest, ClassifierInput,
    Model, TextClassifier,
};
use serde::Serialize;
use serde_json::Value;

use super::{EvaluationOptions, Line};
use crate::{Error, Result};

/// Quality of a classifier. What is measured follows from what its scores are, see
/// [`ClassificationFunction::of_config`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassificationQuality {
    /// Share of passages with the correct class, or with exactly the correct classes if any number of them can be. `None` for a
    /// regression.
    pub accuracy: Option<f64>,
    /// F1 over all passages and classes (micro average), if any number of classes can be correct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
    /// Mean over passages and values of the squared difference from the label, of a regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_squared_error: Option<f64>,
    /// Number of passages with a label.
    pub passages: usize,
    /// Largest absolute difference from the logits in the file, if it has any.
    pub max_logit_error: Option<f64>,
}

/// Above this score a class that does not exclude others is predicted, as in transformers' examples (a logit above 0).
const THRESHOLD: f32 = 0.5;

pub(super) fn evaluate(
    model: &Model,
    path: &Path,
    lines: &[(usize, Line)],
    options: &EvaluationOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ClassificationQuality> {
    let classifier = TextClassifier::new(model)?;
    let options = ClassificationOptions::default().with_max_tokens(options.max_tokens).with_batch_size(1);
    let function = ClassificationFunction::of_config(model.config());
    let mut tally = Tally { function, ..Tally::default() };
    for (done, (number, line)) in lines.iter().enumerate() {
        let input = match &line.text_pair {
            Some(text_pair) => ClassifierInput::from((&line.text, text_pair)),
            None => ClassifierInput::from(&line.text),
        };
        let request = ClassificationRequest::new(input).with_options(options.clone());
        for result in classifier.classify(&request)? {
            let added = tally.add(&result, line, &model.config().labels);
            added.map_err(|message| Error::Line { path: path.to_owned(), line: *number, message })?;
        }
        progress(done + 1, lines.len());
    }
    if tally.passages == 0 {
        return Err(Error::NothingToEvaluate { path: path.to_owned() });
    }
    Ok(tally.finish())
}

/// Sums over the passages so far.
#[derive(Debug)]
struct Tally {
    function: ClassificationFunction,
    passages: usize,
    correct: usize,
    /// Predicted classes, correct ones, and those that are both.
    classes: [usize; 3],
    squared_error: f64,
    values: usize,
    max_logit_error: Option<f64>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            function: ClassificationFunction::Softmax,
            passages: 0,
            correct: 0,
            classes: [0; 3],
            squared_error: 0.0,
            values: 0,
            max_logit_error: None,
        }
    }
}

impl Tally {
    fn add(&mut self, result: &Classification, line: &Line, labels: &[String]) -> Result<(), String> {
        if let Some(label) = &line.label {
            self.passages += 1;
            match self.function {
                ClassificationFunction::Sigmoid => self.add_classes(result, &class_set(label, labels)?),
                ClassificationFunction::None => self.add_values(result, &values(label, labels.len())?),
                // softmax, and what may be added to it
                _ => self.correct += usize::from(result.label_index == label_index(label, labels)?),
            }
        }
        if let Some(expected) = &line.logits {
            if expected.len() != result.logits.len() {
                return Err(format!("{} logits, the model gives {}", expected.len(), result.logits.len()));
            }
            for (found, expected) in result.logits.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                let error = if error.is_nan() { f64::INFINITY } else { error };
                self.max_logit_error = Some(self.max_logit_error.unwrap_or(0.0).max(error));
            }
        }
        Ok(())
    }

    fn add_classes(&mut self, result: &Classification, expected: &BTreeSet<usize>) {
        let scores = result.scores.iter().enumerate();
        let predicted: BTreeSet<usize> =
            scores.filter(|(_, score)| **score > THRESHOLD).map(|(index, _)| index).collect();
        self.correct += usize::from(predicted == *expected);
        let both = predicted.intersection(expected).count();
        for (sum, count) in self.classes.iter_mut().zip([predicted.len(), expected.len(), both]) {
            *sum += count;
        }
    }

    fn add_values(&mut self, result: &Classification, expected: &[f64]) {
        let errors = result.scores.iter().zip(expected).map(|(found, expected)| f64::from(*found) - expected);
        self.squared_error += errors.map(|error| error * error).sum::<f64>();
        self.values += expected.len();
    }

    fn finish(self) -> ClassificationQuality {
        let is_regression = self.function == ClassificationFunction::None;
        let is_multi_label = self.function == ClassificationFunction::Sigmoid;
        let [predicted, expected, both] = self.classes;
        // without any class, predicted or expected, nothing is wrong
        let f1 =
            if predicted + expected == 0 { 1.0 } else { 2.0 * both as f64 / (predicted + expected) as f64 };
        ClassificationQuality {
            accuracy: (!is_regression).then(|| self.correct as f64 / self.passages as f64),
            f1: is_multi_label.then_some(f1),
            mean_squared_error: is_regression.then(|| self.squared_error / self.values as f64),
            passages: self.passages,
            max_logit_error: self.max_logit_error,
        }
    }
}

/// A label, as a number or a name.
fn label_index(label: &Value, labels: &[String]) -> Result<usize, String> {
    let index = match label {
        Value::Number(number) => {
            number.as_u64().map(|index| index as usize).filter(|index| *index < labels.len())
        }
        Value::String(name) => labels.iter().position(|other| other == name),
        _ => None,
    };
    index.ok_or_else(|| format!("label {label} is none of the model's: {}", labels.join(", ")))
}

/// Labels of which any number can be: a list of numbers or names. For the only label of a model also whether it is the case:
/// a boolean, 0 or 1.
fn class_set(label: &Value, labels: &[String]) -> Result<BTreeSet<usize>, String> {
    if labels.len() == 1 {
        match (label.as_bool(), label.as_f64()) {
            (Some(true), _) => return Ok(BTreeSet::from([0])),
            (Some(false), _) => return Ok(BTreeSet::new()),
            (None, Some(1.0)) => return Ok(BTreeSet::from([0])),
            (None, Some(0.0)) => return Ok(BTreeSet::new()),
            _ => {}
        }
    }
    match label {
        Value::Array(several) => several.iter().map(|label| label_index(label, labels)).collect(),
        one => Ok(BTreeSet::from([label_index(one, labels)?])),
    }
}

/// The values of a regression: a number, or a list of as many as the model has labels.
fn values(label: &Value, count: usize) -> Result<Vec<f64>, String> {
    let values: Option<Vec<f64>> = match label {
        Value::Array(values) => values.iter().map(Value::as_f64).collect(),
        value => value.as_f64().map(|value| vec![value]),
    };
    values
        .filter(|values| values.len() == count)
        .ok_or_else(|| format!("label {label} is not the value of a regression, expected {count} numbers"))
}
