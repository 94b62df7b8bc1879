use std::io::{self, BufRead, IsTerminal};

use anyhow::Context;
use clap::Args;
use jetmoe_conformance::Backend;
use jetmoe_rt::{Classification, ClassificationOptions, TextClassifier};
use serde::Serialize;

use super::model::ModelArguments;
use super::{ExitStatus, Format, note, print};

/// Classify texts.
///
/// Texts are the arguments, or the lines of standard input.
#[derive(Debug, Args)]
pub(crate) struct Classify {
    #[command(flatten)]
    model: ModelArguments,
    /// Runtime; ONNX Runtime for an artifact (tract where there is none), the reference for a checkpoint.
    #[arg(long, value_name = "ort|tract|reference")]
    backend: Option<Backend>,
    /// Cut longer texts at this many tokens; without it they are an error.
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Texts that go through the model at a time.
    #[arg(long, value_name = "N", default_value_t = ClassificationOptions::default().batch_size)]
    batch_size: usize,
    /// One line per text: probability, label and text; or JSON.
    #[arg(long, value_name = "table|json", default_value = "table")]
    format: Format,
    /// The texts; standard input, one a line, by default.
    texts: Vec<String>,
}

#[derive(Serialize)]
struct Output<'a> {
    text: &'a str,
    label: &'a str,
    label_index: usize,
    probability: f32,
    logits: &'a [f32],
}

impl Classify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let texts = self.read_texts()?;
        anyhow::ensure!(
            !texts.is_empty(),
            "there is no text to classify; give it as argument or on standard input"
        );
        let model = self.model.load(self.backend)?;
        let options = ClassificationOptions { max_tokens: self.max_tokens, batch_size: self.batch_size };
        let results = TextClassifier::new(&model)?.classify(&texts, &options)?;
        for (text, result) in texts.iter().zip(&results) {
            print(&self.line(text, result)?)?;
        }
        Ok(ExitStatus::Success)
    }

    fn read_texts(&self) -> anyhow::Result<Vec<String>> {
        if !self.texts.is_empty() {
            return Ok(self.texts.clone());
        }
        if io::stdin().is_terminal() {
            note("Type one text a line and end with Ctrl-D.");
        }
        let lines: Vec<String> = io::stdin()
            .lock()
            .lines()
            .collect::<Result<_, _>>()
            .context("cannot read texts from standard input")?;
        Ok(lines.into_iter().filter(|line| !line.trim().is_empty()).collect())
    }

    fn line(&self, text: &str, result: &Classification) -> anyhow::Result<String> {
        Ok(match self.format {
            Format::Table => format!("{:5.1} %  {}  {text}\n", result.probability * 100.0, result.label),
            Format::Json => {
                let mut line = serde_json::to_string(&Output {
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
