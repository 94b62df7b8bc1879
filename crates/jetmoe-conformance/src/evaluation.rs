//! Quality on held-out text: perplexity of a language model, accuracy of a classifier.

mod classifier;
mod difference;

use std::path::Path;

use jetmoe_artifact::{OutputName, Task};
use jetmoe_rt::{Model, TokenBatch, TokenScore};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::classifier::ClassificationQuality;
use self::difference::Differences;
pub use self::difference::{Difference, RouterAgreement};
use crate::{Error, Result};

/// Options of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationOptions {
    /// Tokens per window of a language model. Default: 256.
    pub window: usize,
    /// Tokens to which a classifier's text is truncated, special ones included; 160 by default.
    pub max_tokens: usize,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        EvaluationOptions { window: 256, max_tokens: 160 }
    }
}

/// Result of an evaluation; its JSON form is that of `jetmoe eval --format json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Quality {
    /// Of a language model.
    CausalLm(LanguageModelQuality),
    /// Of a classifier.
    SequenceClassification(ClassificationQuality),
}

/// How well a language model predicts a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageModelQuality {
    /// e to the power of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Mean negative log-likelihood per predicted token, in nats.
    pub negative_log_likelihood: f64,
    /// Share of tokens predicted by top-1.
    pub next_token_accuracy: f64,
    /// Number of predicted tokens.
    pub predicted_tokens: usize,
    /// Difference from the baseline's predictions, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

#[derive(Deserialize)]
struct Line {
    text: String,
    text_pair: Option<String>,
    label: Option<Value>,
    logits: Option<Vec<f64>>,
}

/// Evaluates a model on a file with one JSON object per line: `text`, and for a classifier `label` and optionally
/// `text_pair` and `logits`. A label is a number or a name; a list of them if any number of classes can be correct; the value of
/// a regression. A language model can be compared with a baseline, token by token.
///
/// A language model's text is encoded with special tokens and split into windows without overlap; every token of a window
/// except the first is predicted. A classifier's text is truncated at its end. `progress` receives the number of
/// completed lines and of all lines.
///
/// # Errors
/// An invalid file or line, or an error of the backend.
pub fn evaluate(
    model: &Model,
    baseline: Option<&Model>,
    path: &Path,
    options: &EvaluationOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quality> {
    let lines = read_lines(path)?;
    if let Some(baseline) = baseline {
        check_baseline(model, baseline)?;
    }
    match model.task() {
        Task::CausalLm => {
            Ok(Quality::CausalLm(evaluate_language_model(model, baseline, path, &lines, options, progress)?))
        }
        Task::SequenceClassification => {
            Ok(Quality::SequenceClassification(classifier::evaluate(model, path, &lines, options, progress)?))
        }
        task @ Task::Backbone => Err(Error::NotEvaluable { task }),
    }
}

/// Checks that both models read and predict the same tokens, so that predictions can be compared.
fn check_baseline(model: &Model, baseline: &Model) -> Result<()> {
    for model in [model, baseline] {
        if model.task() != Task::CausalLm {
            return Err(Error::Baseline { message: format!("a {} model predicts no tokens", model.task()) });
        }
    }
    let (found, expected) = (model.config().vocab_size, baseline.config().vocab_size);
    if found == expected {
        return Ok(());
    }
    Err(Error::Baseline { message: format!("its vocabulary has {expected} tokens, the model's {found}") })
}

fn read_lines(path: &Path) -> Result<Vec<(usize, Line)>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let number = index + 1;
            serde_json::from_str(line).map(|line| (number, line)).map_err(|error| Error::Line {
                path: path.to_owned(),
                line: number,
                message: format!("{}; expected a JSON object with a field \"text\"", without_place(&error)),
            })
        })
        .collect()
}

/// The parser's error without its line number, which refers to the single line that was parsed.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => message,
    }
}

fn evaluate_language_model(
    model: &Model,
    baseline: Option<&Model>,
    path: &Path,
    lines: &[(usize, Line)],
    options: &EvaluationOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<LanguageModelQuality> {
    let tokenizer = model.tokenizer().ok_or(jetmoe_rt::Error::NoTokenizer)?;
    let (mut total, mut predicted, mut correct) = (0.0_f64, 0_usize, 0_usize);
    let mut differences = Differences::default();
    for (done, (_, line)) in lines.iter().enumerate() {
        let ids = tokenizer.encode(&line.text, true)?;
        for window in ids.chunks(options.window.max(2)).filter(|window| window.len() > 1) {
            let batch = TokenBatch::left_padded(&[window], 0)?;
            let output = model.session()?.step(&batch)?;
            let logits = output.logits()?; // [1, tokens, vocab]
            for (place, target) in window[1..].iter().enumerate() {
                let logits = logits.slice(ndarray::s![0, place, ..]);
                let Some(score) = TokenScore::of(logits, *target, 0) else {
                    return Err(Error::Model(jetmoe_rt::Error::OutputShape {
                        name: OutputName::Logits,
                        expected: vec![1, window.len(), model.config().vocab_size],
                        found: vec![1, window.len(), logits.len()],
                    }));
                };
                total -= score.log_probability;
                correct += usize::from(score.is_greedy);
                predicted += 1;
            }
            if let Some(baseline) = baseline {
                let expected = baseline.session()?.step(&batch)?;
                differences.add(&output, &expected, &window[1..], model.config().num_experts_per_token)?;
            }
        }
        progress(done + 1, lines.len());
    }
    if predicted == 0 {
        return Err(Error::NothingToEvaluate { path: path.to_owned() });
    }
    let mean = total / predicted as f64;
    Ok(LanguageModelQuality {
        perplexity: mean.exp(),
        negative_log_likelihood: mean,
        next_token_accuracy: correct as f64 / predicted as f64,
        predicted_tokens: predicted,
        difference: baseline.map(|baseline| differences.finish(baseline.backend())),
    })
}

#[cfg(test)]
mod tests;
