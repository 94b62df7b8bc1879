//! The raw results, and what of them counts: medians over the rounds.

use serde_json::Value;

use super::super::rounds::median;
use super::Contender;

/// Raw results.
pub(super) struct Results<'a> {
    pub(super) raw: &'a Value,
}

/// What one layer did with a number of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) operations_per_byte: f64,
    pub(super) operations_per_second: f64,
}

impl<'a> Results<'a> {
    pub(super) fn new(raw: &'a Value) -> Self {
        Results { raw }
    }

    /// A contender's results, one per round; none if it was not measured.
    fn of(&self, contender: Contender) -> impl Iterator<Item = &'a Value> {
        let rounds = self.raw["rounds"].as_array().into_iter().flatten();
        rounds.filter_map(move |round| round.get(contender.name()))
    }

    fn runs(&self, contender: Contender, tokens: usize) -> impl Iterator<Item = &'a Value> {
        let is_it = move |run: &&Value| run["tokens"] == tokens;
        self.of(contender).filter_map(move |result| result["runs"].as_array()?.iter().find(is_it))
    }

    /// Median over the rounds of a number of the run with so many tokens; `None` if there is none.
    pub(super) fn number(&self, contender: Contender, tokens: usize, field: &str) -> Option<f64> {
        median(self.runs(contender, tokens).filter_map(|run| run[field].as_f64()).collect())
    }

    pub(super) fn milliseconds(&self, contender: Contender, tokens: usize) -> Option<f64> {
        self.number(contender, tokens, "milliseconds")
    }

    pub(super) fn point(&self, contender: Contender, tokens: usize) -> Option<Point> {
        let operations = self.number(contender, tokens, "operations")?;
        Some(Point {
            operations_per_byte: operations / self.number(contender, tokens, "weight_bytes")?,
            operations_per_second: operations * 1e3 / self.milliseconds(contender, tokens)?,
        })
    }

    /// The fastest peer and its milliseconds.
    pub(super) fn best_peer(&self, tokens: usize) -> Option<(Contender, f64)> {
        let peers = Contender::ALL.into_iter().filter(|contender| contender.is_peer());
        peers
            .filter_map(|peer| Some((peer, self.milliseconds(peer, tokens)?)))
            .min_by(|left, right| left.1.total_cmp(&right.1))
    }

    /// Our time as a multiple of the best peer's.
    pub(super) fn ratio(&self, tokens: usize) -> Option<f64> {
        Some(self.milliseconds(Contender::Jetmoe, tokens)? / self.best_peer(tokens)?.1)
    }

    /// The time of the kernels that could be taken instead of ours, as a multiple of ours.
    pub(super) fn candle(&self, tokens: usize) -> Option<f64> {
        Some(self.milliseconds(Contender::Candle, tokens)? / self.milliseconds(Contender::Jetmoe, tokens)?)
    }

    /// What a contender calls itself.
    pub(super) fn runtime(&self, contender: Contender) -> Option<String> {
        let result = self.of(contender).next()?;
        match result["instructions"].as_str() {
            Some(instructions) => Some(format!("jetmoe-kernels, 4-bit, `{instructions}`")),
            None => Some(result["runs"][0]["runtime"].as_str()?.to_owned()),
        }
    }

    /// A limit of the machine, the best of all rounds: whatever disturbs makes slower.
    pub(super) fn limit(&self, field: &str) -> Option<f64> {
        self.of(Contender::Jetmoe).filter_map(|result| result[field].as_f64()).reduce(f64::max)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Two rounds of us and two peers, one token and sixteen.
    pub(crate) fn raw() -> Value {
        let run = |tokens: usize, milliseconds: f64, runtime: &str| {
            json!({
                "tokens": tokens, "milliseconds": milliseconds, "operations": 140_000_000 * tokens,
                "weight_bytes": 40_000_000, "share_of_read": 0.9, "runtime": runtime,
            })
        };
        let round = |scale: f64| {
            json!({
                "jetmoe": {
                    "instructions": "avx2", "read_bytes_per_second": 30e9 * scale,
                    "float32_operations_per_second": 130e9,
                    "runs": [run(1, 1.5 * scale, ""), run(16, 9.0 * scale, "")],
                },
                "onnxruntime": { "runs": [run(1, 2.0 * scale, "onnxruntime 1"), run(16, 20.0 * scale, "")] },
                "openvino": { "runs": [run(1, 3.0 * scale, "openvino 1"), run(16, 18.0 * scale, "")] },
                // the fastest, but nobody whom a user would run
                "candle": { "runs": [run(1, 1.8 * scale, "candle"), run(16, 10.8 * scale, "")] },
            })
        };
        json!({
            "command": "cargo xtask bench --kernels", "processor": "a processor",
            "rounds": [round(1.0), round(2.0)],
        })
    }

    #[test]
    fn we_are_compared_with_whoever_is_fastest_at_that_number_of_tokens() {
        let raw = raw();
        let results = Results::new(&raw);
        assert_eq!(results.best_peer(1), Some((Contender::OnnxRuntime, 3.0)));
        assert_eq!(results.best_peer(16), Some((Contender::Openvino, 27.0)));
        assert_eq!(results.ratio(1), Some(0.75));
        assert_eq!(results.ratio(512), None);
        assert_eq!(results.candle(16).map(|multiple| (multiple * 1e6).round()), Some(1.2e6));
    }

    #[test]
    fn a_limit_is_the_best_of_the_rounds() {
        let raw = raw();
        assert_eq!(Results::new(&raw).limit("read_bytes_per_second"), Some(60e9));
    }

    #[test]
    fn a_point_says_what_was_done_for_each_byte_and_second() {
        let raw = raw();
        let point = Results::new(&raw).point(Contender::Jetmoe, 16).unwrap();
        assert_eq!(point.operations_per_byte, 56.0);
        assert!((point.operations_per_second - 2.24e9 / 13.5e-3).abs() < 1.0);
    }
}
