//! A graph of an artifact against the reference on the weights it holds, or against a golden file, in every backend.

use std::path::PathBuf;

use jetmoe_artifact::{Artifact, GraphRecord};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_rt::LoadOptions;

use crate::reference::{reference_model, reference_model_of_graph};
use crate::{Backend, Comparison, Error, Expectation, Result, Tolerance, compare, load};

/// Verifies an artifact, backend by backend.
#[derive(Debug)]
pub struct Verifier<'a> {
    artifact: &'a Artifact,
    checkpoint: Option<&'a Checkpoint>,
    options: LoadOptions,
    golden: Option<Expectation>,
    /// What the reference made of the weights of a graph, by the graph's file.
    computed: Vec<(PathBuf, Expectation)>,
}

impl<'a> Verifier<'a> {
    /// `options` choose among the graphs. `golden` is compared with in place of the reference, which needs the
    /// checkpoint.
    pub fn new(
        artifact: &'a Artifact,
        checkpoint: Option<&'a Checkpoint>,
        options: LoadOptions,
        golden: Option<Expectation>,
    ) -> Self {
        Verifier { artifact, checkpoint, options, golden, computed: Vec::new() }
    }

    /// Compares what one backend makes of the graph that the options take for it.
    ///
    /// # Errors
    /// A graph that cannot be had or loaded, a golden file for weights that the graph does not hold, or nothing in
    /// common between graph and expectation.
    pub fn verify(&mut self, backend: Backend) -> Result<Comparison> {
        let Some(runtime) = backend.runtime() else { return self.verify_reference() };
        let record = self.options.choose_graph(self.artifact, runtime)?;
        let tolerance = Tolerance::of(record, runtime, self.options.int8_activations);
        if self.golden.is_some() && !holds_the_checkpoints_weights(record) {
            return Err(Error::GoldenOfOtherWeights { precision: record.precision });
        }
        self.compute(record)?;
        let model = load(backend, self.artifact, self.checkpoint, &self.options)?;
        let mut comparison = compare(backend, &model, self.expectation(record)?, tolerance)?;
        comparison.graph = Some(record.graph.path.clone());
        self.something_in_common(comparison, record)
    }

    /// The reference against the golden file.
    fn verify_reference(&mut self) -> Result<Comparison> {
        let record = self.artifact.graph(self.options.precision, self.options.profile)?;
        let model = load(Backend::Reference, self.artifact, self.checkpoint, &self.options)?;
        let comparison = compare(Backend::Reference, &model, self.expectation(record)?, Tolerance::Float32)?;
        self.something_in_common(comparison, record)
    }

    /// Who says what must come out.
    pub fn expected_by(&self) -> String {
        let computed = self.computed.iter().map(|(_, expectation)| expectation);
        self.golden.iter().chain(computed).next().map_or(String::new(), |found| found.source.clone())
    }

    fn something_in_common(&self, comparison: Comparison, record: &GraphRecord) -> Result<Comparison> {
        if comparison.tensors.is_empty() {
            let source = self.expectation(record)?.source.clone();
            return Err(Error::NothingCompared { expected_by: source, expected: comparison.not_compared });
        }
        Ok(comparison)
    }

    /// Has the reference compute what a graph must give, unless that is known.
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

/// Whether a graph's weights are those of the checkpoint, to the last bit.
fn holds_the_checkpoints_weights(record: &GraphRecord) -> bool {
    record.stored.keys().all(|format| format.bits() == 32)
}
