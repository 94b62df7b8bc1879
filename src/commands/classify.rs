//! `jetmoe classify`.

mod texts;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_artifact::Task;
use jetmoe_conformance::BackendName;
use jetmoe_console::{escape_line, json_line};
use jetmoe_rt::{
    Classification, ClassificationFunction, ClassificationOptions, ClassificationRequest, ClassifierInput,
    Error, ErrorKind, Model, TextClassifier,
};
use serde::Serialize;

use self::texts::{Numbered, Texts, is_blank};
use super::model::ModelArguments;
use super::{ExitStatus, Format, SCHEMA, note, print};

/// Classify texts, or pairs of texts.
///
/// The texts are the arguments, or the lines of standard input, which are classified as they come. Each has one result with its
/// number, from 1; a blank text has one without a class. If a text cannot be classified, the others are, and the exit status is 2.
///
/// Scores are what transformers' text-classification pipeline gives: probabilities that sum up to 1; with the problem type
/// multi_label_classification, or a single label, a probability of each class alone; with the problem type regression, values.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  jetmoe classify --model artifact \"In the beginning was the Word\"")]
pub(crate) struct Classify {
    #[command(flatten)]
    model: ModelArguments,
    /// Backend, one that `jetmoe devices` lists [default: ort for an artifact, or tract without ONNX Runtime; reference for
    /// a checkpoint]
    #[arg(long)]
    backend: Option<BackendName>,
    /// Cut longer texts to this many tokens, special ones included [default: see --too-long]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// What to do with a text that has more tokens than the model has positions [default: refuse]
    #[arg(long, value_name = "ACTION")]
    too_long: Option<TooLong>,
    /// Each text is a pair, separated by a tab: a query and a passage, for instance.
    #[arg(long)]
    pairs: bool,
    /// Texts per step.
    #[arg(long, value_name = "N", default_value_t = ClassificationOptions::default().batch_size)]
    batch_size: usize,
    /// Most bytes of a text, also of one that is cut [default: 64 per position of the model, at least 1048576]
    #[arg(long, value_name = "N")]
    max_text_bytes: Option<usize>,
    /// Print one line per text: number, score, label and text, or a JSON object.
    #[arg(long, default_value = "table")]
    format: Format,
    /// The texts [default: standard input, one per line]
    texts: Vec<String>,
}

/// What to do with a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TooLong {
    /// Classify what fits, as transformers does with truncation=True, and say so.
    Cut,
    /// Refuse this text alone.
    Refuse,
}

/// One line of `--format json`, documented in docs/json.md. The fields after the texts are null if the text has no class.
#[derive(Serialize)]
struct Output<'a> {
    schema_version: u32,
    line: usize,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
    label: Option<&'a str>,
    label_index: Option<usize>,
    score: Option<f32>,
    probability: Option<f32>,
    function: Option<String>,
    scores: Option<&'a [f32]>,
    logits: Option<&'a [f32]>,
    tokens: Option<usize>,
    truncated: Option<bool>,
    error: Option<String>,
}

/// Why a text has no class.
#[derive(Debug)]
enum Unclassified {
    /// It is blank, which is no mistake.
    Blank,
    /// It cannot be classified.
    Refused(String),
}

impl Unclassified {
    fn message(&self) -> &str {
        match self {
            Unclassified::Blank => "the text is blank",
            Unclassified::Refused(message) => message,
        }
    }
}

/// Batches of texts that are sorted by length together, before their results are printed. The first chunk is one batch, and
/// each may have twice as many as the one before.
const MAX_BATCHES: usize = 16;

impl Classify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let options = ClassificationOptions::default()
            .with_max_tokens(self.max_tokens)
            .with_batch_size(self.batch_size);
        options.validate().map_err(super::as_cli_error)?;
        anyhow::ensure!(
            self.max_tokens.is_none() || self.too_long != Some(TooLong::Refuse),
            "--max-tokens cuts texts, and --too-long is refuse\n  leave one of them out"
        );
        let opened = self.model.open()?;
        self.model.require_task(&opened, Task::SequenceClassification)?;
        let limit = self.max_text_bytes.unwrap_or_else(|| Model::default_max_text_bytes(opened.config()));
        // a pair has a tab besides its texts
        let mut texts = Texts::read(&self.texts, limit.saturating_add(usize::from(self.pairs)))?;
        let model = self.model.load(&opened, self.backend)?.with_max_text_bytes(self.max_text_bytes);
        let classifier = TextClassifier::new(&model)?;
        let positions = classifier.model().config().max_position_embeddings;
        let options = match (self.max_tokens, self.too_long) {
            (None, Some(TooLong::Cut)) => options.with_max_tokens(positions),
            _ => options,
        };
        let (mut refused, mut cut) = (Vec::new(), Vec::new());
        let (mut count, mut batches) = (0, 1);
        loop {
            let chunk = texts.next_chunk(self.batch_size.saturating_mul(batches))?;
            if chunk.is_empty() {
                break;
            }
            for (text, result) in chunk.iter().zip(self.classify(&classifier, &options, &chunk)?) {
                match &result {
                    Ok(classification) if classification.truncated => cut.push(text.line),
                    Err(Unclassified::Refused(_)) => refused.push(text.line),
                    _ => {}
                }
                print(&self.row(text, &result)?)?;
            }
            count += chunk.len();
            batches = MAX_BATCHES.min(batches * 2);
        }
        if !cut.is_empty() {
            let tokens = options.max_tokens.unwrap_or(positions);
            note(&format!("cut to {tokens} tokens: {}", list(&cut)));
        }
        if refused.is_empty() {
            return Ok(ExitStatus::Success);
        }
        note(&format!("{} of {count} texts cannot be classified: {}", refused.len(), list(&refused)));
        Ok(ExitStatus::BadInput)
    }

    /// A result for each text.
    fn classify(
        &self,
        classifier: &TextClassifier,
        options: &ClassificationOptions,
        texts: &[Numbered],
    ) -> anyhow::Result<Vec<Result<Classification, Unclassified>>> {
        let inputs: Vec<Result<ClassifierInput, Unclassified>> =
            texts.iter().map(|text| self.input(text, classifier.model().max_text_bytes())).collect();
        let usable = inputs.iter().filter_map(|input| input.as_ref().ok().cloned());
        let request = ClassificationRequest::batch(usable).with_options(options.clone());
        let mut results = classifier.classify_each(&request)?.into_iter();
        inputs
            .into_iter()
            .map(|input| match input {
                Err(unclassified) => Ok(Err(unclassified)),
                Ok(_) => match results.next().context("a text has no result")? {
                    Ok(classification) => Ok(Ok(classification)),
                    Err(error) => Ok(Err(Unclassified::Refused(describe(error)?))),
                },
            })
            .collect()
    }

    fn input(&self, text: &Numbered, limit: usize) -> Result<ClassifierInput, Unclassified> {
        if !text.is_utf8 {
            return Err(Unclassified::Refused("the text is not UTF-8".to_owned()));
        }
        if text.bytes > text.text.len() {
            return Err(Unclassified::Refused(too_many_bytes(text.bytes, limit)));
        }
        let text = text.text.as_str();
        match (is_blank(text), self.pairs, text.split_once('\t')) {
            (true, ..) => Err(Unclassified::Blank),
            (false, false, _) => Ok(ClassifierInput::from(text)),
            (false, true, Some(pair)) => Ok(ClassifierInput::from(pair)),
            (false, true, None) => {
                Err(Unclassified::Refused("there is no tab between the two texts".to_owned()))
            }
        }
    }

    fn row(&self, text: &Numbered, result: &Result<Classification, Unclassified>) -> anyhow::Result<String> {
        let Numbered { line, text, .. } = text;
        if self.format == Format::Json {
            let (text, text_pair) = match text.split_once('\t') {
                Some((text, text_pair)) if self.pairs => (text, Some(text_pair)),
                _ => (text.as_str(), None),
            };
            let class = result.as_ref().ok();
            let is_probability = |class: &&Classification| class.function != ClassificationFunction::None;
            return Ok(json_line(&Output {
                schema_version: SCHEMA,
                line: *line,
                text,
                text_pair,
                label: class.map(|class| class.label.as_str()),
                label_index: class.map(|class| class.label_index),
                score: class.map(|class| class.score),
                probability: class.filter(is_probability).map(|class| class.score),
                function: class.map(|class| class.function.to_string()),
                scores: class.map(|class| class.scores.as_slice()),
                logits: class.map(|class| class.logits.as_slice()),
                tokens: class.map(|class| class.tokens),
                truncated: class.map(|class| class.truncated),
                error: result.as_ref().err().map(|error| error.message().to_owned()),
            })?);
        }
        let escaped = escape_line(text);
        Ok(match result {
            Ok(class) if class.function == ClassificationFunction::None => {
                format!("{line:4}  {:7.3}  {}  {escaped}\n", class.score, escape_line(&class.label))
            }
            Ok(class) => {
                format!("{line:4}  {:5.1} %  {}  {escaped}\n", class.score * 100.0, escape_line(&class.label))
            }
            Err(Unclassified::Blank) => format!("{line:4}        –\n"),
            Err(error) => {
                let beginning = beginning(&escaped);
                format!("{line:4}        –  {}: {beginning}\n", escape_line(error.message()))
            }
        })
    }
}

/// So much of a text that one recognizes it.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What is wrong with one text, in one line and without its index in the library's request. Other errors are those of the call.
fn describe(error: Error) -> anyhow::Result<String> {
    match (&error, error.kind()) {
        (Error::TooLong { tokens, limit, .. }, _) => {
            Ok(format!("{tokens} tokens, more than the {limit} positions of the model"))
        }
        (Error::TextTooLong { bytes, limit, .. }, _) => Ok(too_many_bytes(*bytes, *limit)),
        (Error::EmptyPrompt { .. }, _) => Ok("the text has no token".to_owned()),
        (Error::Logits { .. }, _) | (_, ErrorKind::InvalidInput) => Ok(error.to_string()),
        _ => Err(error.into()),
    }
}

fn too_many_bytes(bytes: usize, limit: usize) -> String {
    format!("{bytes} bytes, more than the {limit} of --max-text-bytes")
}

/// The numbers of texts, the first of them.
fn list(lines: &[usize]) -> String {
    const LISTED: usize = 10;
    let mut list = lines.iter().take(LISTED).map(usize::to_string).collect::<Vec<_>>().join(", ");
    if lines.len() > LISTED {
        list.push_str(&format!(" and {} more", lines.len() - LISTED));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refused_text_the_beginning_is_shown() {
        assert_eq!(beginning(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(beginning(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
