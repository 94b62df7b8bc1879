//! `jetmoe mask`.

use clap::{Args, ValueEnum};
use jetmoe_artifact::ObservedValue;
use jetmoe_observe::{AttentionMask, attention_mask, batch};
use jetmoe_view::{TextStyle, mask_png, mask_svg, mask_text};
use serde::Serialize;

use super::observation::{ObservationArguments, Tokens, as_cli_error};
use super::picture::{PictureArguments, has_colors, terminal_width};
use super::{ExitStatus, SCHEMA, json_line};

/// Show which token attends to which.
///
/// The mask is read from the graph while it runs: from an output that is added to a copy of it in memory. Several texts are one
/// batch with padding; --cached and --chunk show the mask of a prompt in several steps.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jetmoe mask --model artifact \"In the beginning\" \"Amen\"\n  \
                  jetmoe mask --model artifact --cached 3 --format svg --output mask.svg \"In the beginning\"")]
pub(crate) struct Mask {
    #[command(flatten)]
    observation: ObservationArguments,
    #[command(flatten)]
    picture: PictureArguments,
    /// How to show the mask.
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Characters, coloured on a terminal.
    Text,
    /// A picture for pages and documents.
    Svg,
    /// A picture of pixels.
    Png,
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
        let window = self.picture.window();
        match self.format {
            Format::Text => {
                let colored = self.picture.is_for_terminal() && has_colors();
                let text = mask_text(&mask, &TextStyle { width: terminal_width(), colored, window })?;
                self.picture.write(text.as_bytes(), "text")?;
            }
            Format::Svg => self.picture.write(mask_svg(&mask, window)?.as_bytes(), "svg")?,
            Format::Png => self.picture.write(&mask_png(&mask, window)?, "png")?,
            Format::Json => {
                let model = self.observation.model.model;
                let json = json_line(&Report { schema_version: SCHEMA, model, mask })?;
                self.picture.write(json.as_bytes(), "json")?;
            }
        }
        Ok(ExitStatus::Success)
    }
}
