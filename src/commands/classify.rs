//! `jetmoe classify`.

use std::io::{self, BufRead, IsTerminal};

use anyhow::Context;
use clap::Args;
use jetmoe_artifact::Task;
use jetmoe_conformance::BackendName;
use jetmoe_rt::{Classification, ClassificationOptions, TextClassifier};
use serde::Serialize;

use super::model::ModelArguments;
use super::{ExitStatus, Format, SCHEMA, note, print};

/// Classify texts.
///
/// The texts are the arguments, or the lines of standard input.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  jetmoe classify --model artifact \"In the beginning was the Word\"")]
pub(crate) struct Classify {
    #[command(flatten)]
    model: ModelArguments,
    /// Backend, one that `jetmoe devices` lists [default: ort for an artifact, or tract without ONNX Runtime; reference for
    /// a checkpoint]
    #[arg(long)]
    backend: Option<BackendName>,
    /// Truncate longer texts to this many tokens; without it they are an error.
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Texts per step.
    #[arg(long, value_name = "N", default_value_t = ClassificationOptions::default().batch_size)]
    batch_size: usize,
    /// Print one line per text: probability, label and text, or a JSON object.
    #[arg(long, default_value = "table")]
    format: Format,
    /// The texts [default: standard input, one per line]
    texts: Vec<String>,
}

/// One line of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Output<'a> {
    schema_version: u32,
    text: &'a str,
    label: &'a str,
    label_index: usize,
    probability: f32,
    logits: &'a [f32],
}

impl Classify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let options = ClassificationOptions::default()
            .with_max_tokens(self.max_tokens)
            .with_batch_size(self.batch_size);
        options.validate().map_err(super::as_cli_error)?;
        let opened = self.model.open()?;
        self.model.require_task(&opened, Task::SequenceClassification)?;
        let texts = self.read_texts()?;
        let model = self.model.load(&opened, self.backend)?;
        let results = TextClassifier::new(&model)?.classify(&texts, &options)?;
        for (text, result) in texts.iter().zip(&results) {
            print(&self.line(text, result)?)?;
        }
        Ok(ExitStatus::Success)
    }

    fn read_texts(&self) -> anyhow::Result<Vec<String>> {
        if let Some(index) = self.texts.iter().position(String::is_empty) {
            anyhow::bail!("text {} is empty", index + 1);
        }
        if !self.texts.is_empty() {
            return Ok(self.texts.clone());
        }
        if io::stdin().is_terminal() {
            note("Type one text per line and end with Ctrl-D.");
        }
        let lines: Vec<String> = io::stdin()
            .lock()
            .lines()
            .collect::<Result<_, _>>()
            .context("cannot read texts from standard input")?;
        let texts: Vec<String> = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
        anyhow::ensure!(
            !texts.is_empty(),
            "there is no text to classify\n  give texts as arguments, or on standard input, one per line"
        );
        Ok(texts)
    }

    fn line(&self, text: &str, result: &Classification) -> anyhow::Result<String> {
        Ok(match self.format {
            Format::Table => format!("{:5.1} %  {}  {text}\n", result.probability * 100.0, result.label),
            Format::Json => {
                let mut line = serde_json::to_string(&Output {
                    schema_version: SCHEMA,
                    text,
                    label: &result.label,
                    label_index: result.label_index,
                    probability: result.probability,
                    logits: &result.logits,
                })?;
                line.push('\n');
                line
            }
        })
    }
}
