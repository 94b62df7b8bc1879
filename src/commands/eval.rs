//! `jetmoe eval`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use jetmoe_artifact::{Precision, Task};
use jetmoe_conformance::{
    BackendName, Difference, EvaluationOptions, LanguageModelQuality, Quality, evaluate,
};
use jetmoe_console::{new_table, step_bar};
use jetmoe_rt::Model;
use serde::Serialize;

use super::model::ModelArguments;
use super::{ExitStatus, Format, SCHEMA};

const BASELINE: &str = "Baseline";

/// Measure quality on held-out text: perplexity, or a classifier's accuracy.
///
/// The file holds one JSON object per line: "text", and for a classifier "label" and optionally "text_pair", the second text of
/// a pair, and "logits" to compare with. A label is a number or a name; if any number of classes can be correct, a list of
/// them; of a regression, its value. For a language model, text is encoded with the begin token and split into windows without
/// overlap; every token of a window except the first is predicted.
#[derive(Debug, Args)]
pub(crate) struct Eval {
    #[command(flatten)]
    model: ModelArguments,
    /// The held-out text.
    #[arg(long, value_name = "FILE.jsonl")]
    text: PathBuf,
    /// Backends to measure, as in ort,tract,reference [default: ort for an artifact, reference for a checkpoint]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    backend: Vec<BackendName>,
    /// Artifact or checkpoint to compare a language model's predictions with: KL divergence, the most probable token, and
    /// the experts that the routers choose, if both were exported with --outputs router-logits.
    #[arg(long, value_name = "DIR", help_heading = BASELINE)]
    baseline: Option<String>,
    /// Graph of the baseline [default: its most precise one]
    #[arg(long, value_name = "PRECISION", requires = "baseline", help_heading = BASELINE)]
    baseline_precision: Option<Precision>,
    /// Tokens per window of a language model, at least 2.
    #[arg(long, value_name = "N", default_value_t = EvaluationOptions::default().window)]
    window: usize,
    /// Truncate a classifier's texts to this many tokens, at least 1.
    #[arg(long, value_name = "N", default_value_t = EvaluationOptions::default().max_tokens)]
    max_tokens: usize,
    /// Print a table or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
}

/// The form of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Report {
    schema_version: u32,
    model: String,
    text: String,
    results: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    runtime: String,
    #[serde(flatten)]
    quality: Quality,
}

impl Eval {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let options = EvaluationOptions { window: self.window, max_tokens: self.max_tokens };
        for (flag, value, least) in [("window", self.window, 2), ("max-tokens", self.max_tokens, 1)] {
            anyhow::ensure!(value >= least, "--{flag} is {value}, expected at least {least}");
        }
        // fails before a large model is loaded
        std::fs::metadata(&self.text).with_context(|| format!("cannot read {}", self.text.display()))?;
        let opened = self.model.open()?;
        let backends: Vec<Option<BackendName>> = if self.backend.is_empty() {
            vec![None]
        } else {
            self.backend.iter().copied().map(Some).collect()
        };
        let baseline = self.baseline()?;
        let results = backends
            .into_iter()
            .map(|backend| {
                let model = self.model.load(&opened, backend)?;
                self.check_length(&model)?;
                let bar = step_bar(format!("evaluating {}", model.backend()), 0);
                let quality =
                    evaluate(&model, baseline.as_ref(), &self.text, &options, &mut |done, lines| {
                        bar.set_length(lines as u64);
                        bar.set_position(done as u64);
                    })?;
                Ok(Measured { runtime: model.backend(), quality })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let text = self.text.display().to_string();
        let report = Report { schema_version: SCHEMA, model: self.model.model, text, results };
        self.format.print(&report, || results_text(&report.results))?;
        Ok(ExitStatus::Success)
    }

    /// The baseline, in its default backend.
    fn baseline(&self) -> anyhow::Result<Option<Model>> {
        let Some(baseline) = &self.baseline else { return Ok(None) };
        let arguments = self.model.with_model(baseline.clone(), self.baseline_precision);
        let opened = arguments.open().context("--baseline")?;
        Ok(Some(arguments.load(&opened, None).context("--baseline")?))
    }

    /// Refuses windows that are longer than the positions of the model.
    fn check_length(&self, model: &Model) -> anyhow::Result<()> {
        let (flag, tokens) = match model.task() {
            Task::SequenceClassification => ("max-tokens", self.max_tokens),
            Task::CausalLm => ("window", self.window),
            Task::Backbone => return Ok(()),
        };
        let positions = model.config().max_position_embeddings;
        anyhow::ensure!(
            tokens <= positions,
            "--{flag} is {tokens}, but {} has {positions} positions\n  give --{flag} {positions} or less",
            self.model.model
        );
        Ok(())
    }
}

fn results_text(results: &[Measured]) -> String {
    let mut table = new_table();
    for result in results {
        match &result.quality {
            Quality::CausalLm(quality) => {
                table.set_header([
                    "backend",
                    "perplexity",
                    "loss",
                    "next-token accuracy",
                    "predicted tokens",
                ]);
                table.add_row([
                    result.runtime.clone(),
                    format!("{:.5}", quality.perplexity),
                    format!("{:.6}", quality.negative_log_likelihood),
                    format!("{:.2} %", quality.next_token_accuracy * 100.0),
                    quality.predicted_tokens.to_string(),
                ]);
            }
            Quality::SequenceClassification(quality) => {
                let percent = |share: f64| format!("{:.2} %", share * 100.0);
                let measures = [
                    ("accuracy", quality.accuracy.map(percent)),
                    ("F1", quality.f1.map(percent)),
                    ("mean squared error", quality.mean_squared_error.map(|error| format!("{error:.5}"))),
                ];
                let measures = measures.into_iter().filter_map(|(name, value)| Some((name, value?)));
                let (names, values): (Vec<_>, Vec<_>) = measures.unzip();
                table.set_header([vec!["backend"], names, vec!["passages", "largest logit error"]].concat());
                let error = quality.max_logit_error.map_or("–".to_owned(), |error| format!("{error:.1e}"));
                let row = [vec![result.runtime.clone()], values, vec![quality.passages.to_string(), error]];
                table.add_row(row.concat());
            }
        }
    }
    let mut text = format!("{table}\n");
    for result in results {
        if let Quality::CausalLm(LanguageModelQuality { perplexity, difference: Some(difference), .. }) =
            &result.quality
        {
            text.push_str(&difference_text(&result.runtime, *perplexity, difference));
        }
    }
    text
}

fn difference_text(backend: &str, perplexity: f64, difference: &Difference) -> String {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let mut differences = new_table();
    let change = perplexity / difference.baseline_perplexity - 1.0;
    differences.add_row(["perplexity".to_owned(), format!("{:+.3} %", change * 100.0)]);
    differences
        .add_row(["KL divergence".to_owned(), format!("{:.6} nats per token", difference.kl_divergence)]);
    differences.add_row(["same best token".to_owned(), percent(difference.top1_agreement)]);
    let mut text = format!("\n{backend} against {}\n{differences}\n", difference.baseline);
    if !difference.routers.is_empty() {
        let mut table = new_table();
        table.set_header(["same experts", "attention", "mlp"]);
        for router in &difference.routers {
            table.add_row([
                format!("layer {}", router.layer),
                percent(router.attention),
                percent(router.mlp),
            ]);
        }
        text.push_str(&format!("{table}\n"));
    }
    text
}
