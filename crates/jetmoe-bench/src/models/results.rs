//! What the raw results say of a target.

use clap::ValueEnum;
use serde_json::Value;

use super::BenchTarget;
use crate::rounds::Rounds;

/// The machine as `jetmoe bench` measured it.
pub(super) struct Machine {
    pub(super) memory_bytes: f64,
    pub(super) read_bytes_per_second: f64,
    pub(super) operations_per_second: f64,
}

impl<'a> Rounds<'a> {
    /// A number of the run with a batch size and prompt length.
    pub(super) fn of_shape(
        &self,
        target: BenchTarget,
        (batch, prompt): (usize, usize),
        pointer: &str,
    ) -> Option<f64> {
        let is_run = |run: &Value| run["batch"] == batch && run["prompt_tokens"] == prompt;
        self.number_of_run(&target.name(), is_run, pointer)
    }

    /// Milliseconds of a decoding step.
    pub(super) fn decode(&self, target: BenchTarget, shape: (usize, usize)) -> Option<f64> {
        self.of_shape(target, shape, "/decode/milliseconds_per_step/median")
    }

    /// Milliseconds of a prompt.
    pub(super) fn prefill(&self, target: BenchTarget, shape: (usize, usize)) -> Option<f64> {
        self.of_shape(target, shape, "/prefill/milliseconds/median")
    }

    pub(super) fn load_seconds(&self, target: BenchTarget) -> Option<f64> {
        self.number(&target.name(), "/load_seconds")
    }

    /// Backend or baseline, with versions.
    pub(super) fn runtime(&self, target: BenchTarget) -> Option<&'a str> {
        self.of(&target.name()).first()?["runtime"].as_str()
    }

    /// The machine. The best round counts, because disturbance only slows down.
    pub(super) fn machine(&self) -> Option<Machine> {
        let results = || BenchTarget::value_variants().iter().flat_map(|target| self.of(&target.name()));
        let machines = || results().filter_map(|result| result.get("machine"));
        machines().next()?;
        let best = |field: &str| machines().filter_map(|machine| machine[field].as_f64()).fold(0.0, f64::max);
        Some(Machine {
            memory_bytes: best("memory_bytes"),
            read_bytes_per_second: best("read_bytes_per_second"),
            operations_per_second: best("operations_per_second"),
        })
    }
}
