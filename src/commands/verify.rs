//! `jetmoe verify`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use jetmoe_artifact::Artifact;
use jetmoe_checkpoint::Checkpoint;
use jetmoe_conformance::{BackendName, VerificationReport, Verifier, read_golden};
use jetmoe_console::{spinner, verification_table};

use super::model::{ModelArguments, Opened, resolve_checkpoint};
use super::{ExitStatus, Format, note};

/// Compare the results of a model with the Candle reference, or with a golden file.
///
/// The reference computes with the weights that the graph stores, so quantization error is not part of the comparison;
/// `jetmoe eval --baseline` measures it. Activations are not quantized, unless the graph itself quantizes them.
///
/// Exit status: 0 if everything is within tolerance, 1 if something is not, 2 if the comparison could not be made.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    model: ModelArguments,
    /// Checkpoint that the artifact was made from [default: the one that the manifest names, if the manifest is yours and the
    /// checkpoint is on this machine]
    #[arg(long, value_name = "MODEL")]
    checkpoint: Option<String>,
    /// Compare with this file of results of transformers instead of the reference.
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Backends to verify, as in ort,tract [default: all of this build]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    backend: Vec<BackendName>,
    /// Print tables or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
}

impl Verify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        anyhow::ensure!(
            self.model.private_copy.is_none(),
            "--private-copy is for the commands that use a model: verify reads the artifact itself\n  leave it out"
        );
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
                let _spinner = spinner("verifying");
                Ok(verifier.verify(backend)?)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let report = VerificationReport::new(self.model.model.clone(), verifier.expected_by(), comparisons);
        self.format.print(&report, || verification_table(&report, io::stdout().is_terminal()))?;
        Ok(if report.passed { ExitStatus::Success } else { ExitStatus::CheckFailed })
    }

    /// The checkpoint, if it is needed. With a golden file only the reference needs it; if the checkpoint is missing and the
    /// reference was not requested, the reference is left out.
    fn checkpoint(
        &self,
        artifact: &Artifact,
        backends: &mut Vec<BackendName>,
    ) -> anyhow::Result<Option<Checkpoint>> {
        if self.golden.is_some() && !backends.contains(&BackendName::REFERENCE) {
            return Ok(None);
        }
        match resolve_checkpoint(artifact, self.checkpoint.as_deref(), "--checkpoint") {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) if self.golden.is_some() && self.checkpoint.is_none() && self.backend.is_empty() => {
                note(&format!("the reference is left out: {error}"));
                backends.retain(|backend| *backend != BackendName::REFERENCE);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The backends to verify. Without a golden file the reference is the expectation, so it is left out.
    fn backends(&self) -> anyhow::Result<Vec<BackendName>> {
        let asked = if self.backend.is_empty() { self.model.backends() } else { self.backend.clone() };
        if self.golden.is_some() {
            return Ok(asked);
        }
        let compared: Vec<BackendName> =
            asked.iter().copied().filter(|backend| *backend != BackendName::REFERENCE).collect();
        anyhow::ensure!(
            !compared.is_empty(),
            "the reference is the expectation, so it cannot be verified against itself\n  verify it against a golden file: --golden FILE"
        );
        if self.backend.contains(&BackendName::REFERENCE) {
            note("the reference is the expectation and is left out; --golden FILE verifies it too");
        }
        Ok(compared)
    }
}
