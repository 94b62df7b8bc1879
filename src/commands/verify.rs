use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use jetmoe_artifact::Artifact;
use jetmoe_checkpoint::Checkpoint;
use jetmoe_conformance::{BackendName, VerificationReport, Verifier, read_golden};
use jetmoe_export::spinner;

use super::model::{ModelArguments, Opened, checkpoint_of};
use super::{ExitStatus, Format, note, print_json, print_table};

/// Compare a model's results with the Candle reference, or with a golden file.
///
/// A graph is compared with the reference on the very weights it holds, so that what is found is wrong arithmetic and not
/// the rounding of weights; `jetmoe eval --baseline` measures that. Quantized weights are multiplied with float32
/// activations here, where the graph leaves the choice.
///
/// Exit status: 0 if everything is within tolerance, 1 if something is not, 2 if the comparison could not be made.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    model: ModelArguments,
    /// The checkpoint that the artifact was made from; the one the manifest remembers by default.
    #[arg(long, value_name = "MODEL")]
    checkpoint: Option<String>,
    /// Compare with this file, which holds results of transformers, instead of the reference.
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Backends to verify; all of this build by default.
    #[arg(long, value_name = "ort,tract,reference", value_delimiter = ',')]
    backend: Vec<BackendName>,
    /// Print tables or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
}

impl Verify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let mut backends = self.backends()?;
        let (artifact, checkpoint) = match self.model.open()? {
            Opened::Artifact(artifact) => {
                let checkpoint = self.checkpoint(&artifact, &mut backends)?;
                (artifact, checkpoint)
            }
            Opened::Checkpoint(checkpoint) => {
                (Box::new(self.model.export_to_cache(&checkpoint)?), Some(*checkpoint))
            }
        };
        artifact.check_digests()?;
        let golden = self.golden.as_ref().map(|golden| read_golden(golden, artifact.config())).transpose()?;
        let options = self.model.exact_load_options()?;
        let mut verifier = Verifier::new(&artifact, checkpoint.as_ref(), options, golden);
        let comparisons = backends
            .into_iter()
            .map(|backend| {
                let spinner = spinner("verifying");
                let comparison = verifier.verify(backend)?;
                spinner.finish_and_clear();
                Ok(comparison)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let report = VerificationReport::new(self.model.model.clone(), verifier.expected_by(), comparisons);
        match self.format {
            Format::Table => print_table(&report.to_table(io::stdout().is_terminal()))?,
            Format::Json => print_json(&report)?,
        }
        Ok(if report.passed { ExitStatus::Success } else { ExitStatus::CheckFailed })
    }

    /// The checkpoint, where it is needed. With a golden file only the reference needs it, which is left out if nobody
    /// asked for it and the checkpoint is gone.
    fn checkpoint(
        &self,
        artifact: &Artifact,
        backends: &mut Vec<BackendName>,
    ) -> anyhow::Result<Option<Checkpoint>> {
        if self.golden.is_some() && !backends.contains(&BackendName::REFERENCE) {
            return Ok(None);
        }
        match checkpoint_of(artifact, self.checkpoint.as_deref(), "name it with --checkpoint") {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) if self.golden.is_some() && self.checkpoint.is_none() && self.backend.is_empty() => {
                note(&format!("the reference is left out: {error}"));
                backends.retain(|backend| *backend != BackendName::REFERENCE);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Without a golden file the reference is the judge, and comparing it with itself would prove nothing.
    fn backends(&self) -> anyhow::Result<Vec<BackendName>> {
        let asked = if self.backend.is_empty() { self.model.backends() } else { self.backend.clone() };
        if self.golden.is_some() {
            return Ok(asked);
        }
        let judged: Vec<BackendName> =
            asked.iter().copied().filter(|backend| *backend != BackendName::REFERENCE).collect();
        anyhow::ensure!(
            !judged.is_empty(),
            "the reference is what verify compares with; give --golden FILE to verify the reference itself"
        );
        if self.backend.contains(&BackendName::REFERENCE) {
            note("the reference is what the others are compared with; --golden FILE verifies it too");
        }
        Ok(judged)
    }
}
