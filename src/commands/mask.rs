//! `jetmoe mask`.

use clap::{Args, ValueEnum};
use jetmoe_artifact::ObservedValue;
use jetmoe_observe::{AttentionMask, attention_mask, batch};
use serde::Serialize;

use super::observation::{ObservationArguments, Tokens, as_cli_error};
use super::{ExitStatus, SCHEMA, print_json_line};

/// Show which token attends to which.
///
/// The mask is read from the graph while it runs: from an output that is added to a copy of it in memory. Several texts are one
/// batch with padding; --cached and --chunk show the mask of a prompt in several steps.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  jetmoe mask --model artifact \"In the beginning\" \"Amen\"")]
pub(crate) struct Mask {
    #[command(flatten)]
    observation: ObservationArguments,
    /// How to print the mask.
    #[arg(long, default_value = "json")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON, for programs. The fields are stable and documented in docs/json.md.
    Json,
}

/// The form of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Report {
    schema_version: u32,
    model: String,
    mask: AttentionMask,
}

impl Mask {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let input = self.observation.read_input()?;
        let model = self.observation.load(&self.observation.model, ObservedValue::AttentionMask)?;
        let sequences = match input.tokens(&model)? {
            Tokens::Batch(sequences) => sequences,
            Tokens::LongText(ids) => vec![ids],
        };
        let tokens = batch(&model, &sequences)?;
        let mask = attention_mask(&model, &tokens, &self.observation.steps()).map_err(as_cli_error)?;
        match self.format {
            Format::Json => {
                print_json_line(&Report {
                    schema_version: SCHEMA,
                    model: self.observation.model.model,
                    mask,
                })?;
            }
        }
        Ok(ExitStatus::Success)
    }
}
