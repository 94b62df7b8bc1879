//! `jetmoe accept-edits`.

use std::path::PathBuf;

use clap::Args;
use jetmoe_artifact::{Artifact, Manifest};
use jetmoe_console::{escape_line, print};
use jetmoe_text::Tokenizer;

use super::{ExitStatus, note};

/// Accept edits of an artifact's configuration and tokenizer files.
///
/// The other commands refuse an artifact whose config.json, generation_config.json, tokenizer or chat template differs from
/// the exported one. This command records the edited files in the manifest; later exports into the artifact keep them. It
/// refuses files that cannot be read, and records none of them then. Files that only other programs read, such as
/// genai_config.json, can be edited without it.
#[derive(Debug, Args)]
pub(crate) struct AcceptEdits {
    /// Artifact made by jetmoe-export.
    #[arg(value_name = "DIR")]
    artifact: PathBuf,
}

impl AcceptEdits {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        // of a folder that is no artifact, the tokenizer does not matter
        Manifest::read(&self.artifact)?;
        if let Some(tokenizer) = Tokenizer::open(&self.artifact)? {
            tokenizer.check_chat_templates()?;
        }
        let accepted = Artifact::accept_edits(&self.artifact)?;
        if accepted.is_empty() {
            note("nothing was edited");
        }
        for file in accepted {
            print(&format!("{}: accepted\n", escape_line(&file)))?;
        }
        Ok(ExitStatus::Success)
    }
}
