//! What the raw results say of a target.

use super::BenchTarget;
use crate::rounds::Rounds;

/// One layer with a number of tokens, as a point of the roofline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) operations_per_byte: f64,
    pub(super) operations_per_second: f64,
}

impl Rounds<'_> {
    /// A number of the run with this many tokens.
    pub(super) fn of_tokens(&self, target: BenchTarget, tokens: usize, pointer: &str) -> Option<f64> {
        self.number_of_run(&target.name(), |run| run["tokens"] == tokens, pointer)
    }

    pub(super) fn milliseconds(&self, target: BenchTarget, tokens: usize) -> Option<f64> {
        self.of_tokens(target, tokens, "/milliseconds")
    }

    /// The way to compute that was the fastest, where a target has several: that of the last round.
    pub(super) fn variant(&self, target: BenchTarget, tokens: usize) -> Option<&str> {
        let runs = self.of(&target.name()).pop()?["runs"].as_array()?;
        runs.iter().find(|run| run["tokens"] == tokens)?["variant"].as_str()
    }

    /// The ways to compute that a target refused.
    pub(super) fn refused(&self, target: BenchTarget) -> Vec<&str> {
        let last = self.of(&target.name()).pop().map(|result| &result["runs"][0]["refused"]);
        last.and_then(|refused| refused.as_array())
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str())
            .collect()
    }

    pub(super) fn point(&self, target: BenchTarget, tokens: usize) -> Option<Point> {
        let operations = self.of_tokens(target, tokens, "/operations")?;
        Some(Point {
            operations_per_byte: operations / self.of_tokens(target, tokens, "/weight_bytes")?,
            operations_per_second: operations * 1e3 / self.milliseconds(target, tokens)?,
        })
    }

    /// The fastest client that a user would run instead of this project, and its milliseconds.
    pub(super) fn fastest_client(&self, tokens: usize) -> Option<(BenchTarget, f64)> {
        let clients = BenchTarget::ALL.into_iter().filter(|target| target.is_client());
        clients
            .filter_map(|client| Some((client, self.milliseconds(client, tokens)?)))
            .min_by(|left, right| left.1.total_cmp(&right.1))
    }

    /// Time of jetmoe as a multiple of the fastest client's.
    pub(super) fn ratio(&self, tokens: usize) -> Option<f64> {
        Some(self.milliseconds(BenchTarget::Jetmoe, tokens)? / self.fastest_client(tokens)?.1)
    }

    /// Time of Candle's kernels as a multiple of jetmoe's.
    pub(super) fn candle_ratio(&self, tokens: usize) -> Option<f64> {
        Some(
            self.milliseconds(BenchTarget::Candle, tokens)?
                / self.milliseconds(BenchTarget::Jetmoe, tokens)?,
        )
    }

    /// A description of the target, with versions.
    pub(super) fn description(&self, target: BenchTarget) -> Option<String> {
        let result = *self.of(&target.name()).first()?;
        match result["instructions"].as_str() {
            Some(isa) => Some(format!("jetmoe-kernels, 4-bit, `{isa}`")),
            None => Some(result["runs"][0]["runtime"].as_str()?.to_owned()),
        }
    }

    /// The instruction set that jetmoe chose.
    pub(super) fn isa(&self) -> Option<&str> {
        self.of(&BenchTarget::Jetmoe.name()).first()?["instructions"].as_str()
    }

    /// The measured instruction sets of jetmoe with their peak of 8-bit integer operations per second, the highest first.
    /// The best round counts, because disturbance only slows down.
    pub(super) fn int8_peaks(&self) -> Vec<(String, f64)> {
        let mut peaks = Vec::new();
        for target in BenchTarget::ALL.into_iter().filter(|target| target.is_jetmoe()) {
            let results = self.of(&target.name());
            let isa = results.first().and_then(|result| result["instructions"].as_str());
            let measured = results.iter().filter_map(|result| result["int8_operations_per_second"].as_f64());
            if let (Some(isa), Some(peak)) = (isa, measured.reduce(f64::max)) {
                peaks.push((isa.to_owned(), peak));
            }
        }
        peaks.sort_by(|left, right| right.1.total_cmp(&left.1));
        peaks
    }

    /// A limit of the machine. The best round counts, because disturbance only slows down.
    pub(super) fn limit(&self, field: &str) -> Option<f64> {
        let results = self.of(&BenchTarget::Jetmoe.name());
        results.into_iter().filter_map(|result| result[field].as_f64()).reduce(f64::max)
    }
}
