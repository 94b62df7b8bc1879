//! Verifies the graphs of an artifact in every backend against the reference with the same weights, or against a golden
//! file.

use std::path::PathBuf;

use jetmoe_artifact::{Artifact, GraphRecord};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_rt::{LoadOptions, choose_graph};

use crate::reference::{reference_model, reference_model_of_graph};
use crate::{BackendName, Comparison, Error, Expectation, Result, Tolerance, compare, load};

/// Verifies an artifact, backend by backend.
#[derive(Debug)]
pub struct Verifier<'a> {
    artifact: &'a Artifact,
    checkpoint: Option<&'a Checkpoint>,
    options: LoadOptions,
    golden: Option<Expectation>,
    /// Expectations by the reference, by graph file.
    computed: Vec<(PathBuf, Expectation)>,
}

impl<'a> Verifier<'a> {
    /// `options` select the graph. `golden` replaces the reference, which needs the checkpoint.
    pub fn new(
        artifact: &'a Artifact,
        checkpoint: Option<&'a Checkpoint>,
        options: LoadOptions,
        golden: Option<Expectation>,
    ) -> Self {
        Verifier { artifact, checkpoint, options, golden, computed: Vec::new() }
    }

    /// Compares the results of one backend on the graph that the options select for it.
    ///
    /// # Errors
    /// A graph that is missing or cannot be loaded, a golden file for weights that the graph does not hold, or nothing in
    /// common between graph and expectation.
    pub fn verify(&mut self, name: BackendName) -> Result<Comparison> {
        if name == BackendName::REFERENCE {
            return self.verify_reference();
        }
        let backend = name.backend()?;
        let record = choose_graph(self.artifact, backend, &self.options)?;
        let tolerance = Tolerance::of(record, backend, &self.options);
        if self.golden.is_some() && !holds_the_checkpoints_weights(record) {
            return Err(Error::GoldenOfOtherWeights { precision: record.precision });
        }
        self.compute(record)?;
        let model = load(name, self.artifact, self.checkpoint, &self.options)?;
        let mut comparison = compare(name, &model, self.expectation(record)?, tolerance)?;
        comparison.graph = Some(record.graph.path.clone());
        self.ensure_outputs_overlap(comparison, record)
    }

    /// Compares the reference with the golden file.
    fn verify_reference(&mut self) -> Result<Comparison> {
        let record = self.artifact.graph(self.options.precision, self.options.profile)?;
        let model = load(BackendName::REFERENCE, self.artifact, self.checkpoint, &self.options)?;
        let comparison =
            compare(BackendName::REFERENCE, &model, self.expectation(record)?, Tolerance::Float32)?;
        self.ensure_outputs_overlap(comparison, record)
    }

    /// Source of the expectation.
    pub fn expected_by(&self) -> String {
        let computed = self.computed.iter().map(|(_, expectation)| expectation);
        self.golden.iter().chain(computed).next().map_or(String::new(), |found| found.source.clone())
    }

    fn ensure_outputs_overlap(&self, comparison: Comparison, record: &GraphRecord) -> Result<Comparison> {
        if comparison.tensors.is_empty() {
            let source = self.expectation(record)?.source.clone();
            return Err(Error::NothingCompared { expected_by: source, expected: comparison.not_compared });
        }
        Ok(comparison)
    }

    /// The results of the reference with the weights of a graph, computed once.
    fn compute(&mut self, record: &GraphRecord) -> Result<()> {
        let path = self.artifact.path(&record.graph);
        if self.golden.is_some() || self.computed.iter().any(|(known, _)| *known == path) {
            return Ok(());
        }
        let source = &self.artifact.manifest().checkpoint.source;
        let checkpoint =
            self.checkpoint.ok_or_else(|| Error::NoCheckpoint { source_name: Some(source.clone()) })?;
        let model = if holds_the_checkpoints_weights(record) {
            reference_model(checkpoint, record.task)?
        } else {
            reference_model_of_graph(checkpoint, self.artifact, record)?
        };
        self.computed.push((path, Expectation::from_model(&model)?));
        Ok(())
    }

    fn expectation(&self, record: &GraphRecord) -> Result<&Expectation> {
        let path = self.artifact.path(&record.graph);
        let computed = self.computed.iter().find(|(known, _)| *known == path).map(|(_, found)| found);
        self.golden.as_ref().or(computed).ok_or(Error::NoCheckpoint { source_name: None })
    }
}

/// Whether the weights of a graph are bit-identical to those of the checkpoint.
fn holds_the_checkpoints_weights(record: &GraphRecord) -> bool {
    record.stored.keys().all(|format| format.bits() == 32)
}
