use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use jetmoe_artifact::Artifact;
use jetmoe_checkpoint::Checkpoint;
use jetmoe_conformance::{
    Backend, Expectation, Tolerance, VerificationReport, compare, read_golden, reference_model,
};
use jetmoe_export::spinner;

use super::model::{ModelArguments, Opened, checkpoint_of};
use super::{ExitStatus, Format, note, print, print_json};

/// Compare a model's results with the Candle reference, or with a golden file.
///
/// Exit status: 0 if everything is within tolerance, 1 if something is not, 2 if the comparison could not be made.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    model: ModelArguments,
    /// The checkpoint that the artifact was made from; the one the manifest remembers by default.
    #[arg(long, value_name = "MODEL")]
    checkpoint: Option<String>,
    /// Compare with this file, which transformers' results were saved to, instead of the reference.
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Backends to verify; all of this build by default.
    #[arg(long, value_name = "ort,tract,reference", value_delimiter = ',')]
    backend: Vec<Backend>,
    /// Print tables or JSON.
    #[arg(long, value_name = "table|json", default_value = "table")]
    format: Format,
}

impl Verify {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let backends = self.backends()?;
        let (artifact, checkpoint) = match self.model.open()? {
            Opened::Artifact(artifact) => {
                let needs_checkpoint = self.golden.is_none() || backends.contains(&Backend::Reference);
                let checkpoint =
                    needs_checkpoint.then(|| checkpoint_of(&artifact, self.checkpoint.as_deref()));
                (artifact, checkpoint.transpose()?)
            }
            Opened::Checkpoint(checkpoint) => {
                (Box::new(self.model.export_to_cache(&checkpoint)?), Some(*checkpoint))
            }
        };
        artifact.check_digests()?;
        let expectation = self.expectation(&artifact, checkpoint.as_ref())?;
        let comparisons = backends
            .into_iter()
            .map(|backend| {
                let spinner = spinner("verifying");
                let model = self.model.load_into(backend, &artifact, checkpoint.as_ref())?;
                let comparison = compare(backend, &model, &expectation, Tolerance::Float32)?;
                spinner.finish_and_clear();
                Ok(comparison)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let report = VerificationReport::new(self.model.model.clone(), expectation.source, comparisons);
        match self.format {
            Format::Table => print(&report.to_table(io::stdout().is_terminal()))?,
            Format::Json => print_json(&report)?,
        }
        Ok(if report.passed { ExitStatus::Success } else { ExitStatus::CheckFailed })
    }

    /// Without a golden file the reference is the judge, and comparing it with itself would prove nothing.
    fn backends(&self) -> anyhow::Result<Vec<Backend>> {
        let asked = if self.backend.is_empty() { Backend::built_in() } else { self.backend.clone() };
        if self.golden.is_some() {
            return Ok(asked);
        }
        let judged: Vec<Backend> =
            asked.iter().copied().filter(|backend| *backend != Backend::Reference).collect();
        anyhow::ensure!(
            !judged.is_empty(),
            "the reference is what verify compares with; give --golden FILE to verify the reference itself"
        );
        if self.backend.contains(&Backend::Reference) {
            note("the reference is what the others are compared with; --golden FILE verifies it too");
        }
        Ok(judged)
    }

    fn expectation(
        &self,
        artifact: &Artifact,
        checkpoint: Option<&Checkpoint>,
    ) -> anyhow::Result<Expectation> {
        if let Some(golden) = &self.golden {
            return Ok(read_golden(golden, artifact.config())?);
        }
        let checkpoint = checkpoint.ok_or_else(|| anyhow::anyhow!("the reference needs the checkpoint"))?;
        let task = artifact.manifest().graphs.first().map(|graph| graph.task);
        let task = task.ok_or_else(|| anyhow::anyhow!("{} holds no graph", artifact.folder().display()))?;
        let spinner = spinner("reference");
        let expectation = Expectation::from_model(&reference_model(checkpoint, task)?)?;
        spinner.finish_and_clear();
        Ok(expectation)
    }
}
