//! The raw results, and what of them counts: medians over the rounds.

use serde_json::Value;

use super::Peer;

/// Raw results.
pub(super) struct Rounds<'a> {
    pub(super) raw: &'a Value,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(raw: &'a Value) -> Self {
        Rounds { raw }
    }

    /// A peer's results, one per round; none if it was not measured.
    fn of(&self, peer: Peer) -> impl Iterator<Item = &'a Value> {
        let rounds = self.raw["rounds"].as_array().into_iter().flatten();
        rounds.filter_map(move |round| round.get(peer.name()))
    }

    /// Median over the rounds of a number in a peer's results; `None` if it was not measured.
    pub(super) fn number(&self, peer: Peer, pointer: &str) -> Option<f64> {
        median(self.of(peer).filter_map(|result| result.pointer(pointer)?.as_f64()).collect())
    }

    /// As [`Rounds::number`], of the run of a batch size and length of prompt.
    pub(super) fn of_run(&self, peer: Peer, (batch, prompt): (usize, usize), pointer: &str) -> Option<f64> {
        let is_it = |run: &&Value| run["batch"] == batch && run["prompt_tokens"] == prompt;
        let runs = self.of(peer).filter_map(|result| result["runs"].as_array()?.iter().find(is_it));
        median(runs.filter_map(|run| run.pointer(pointer)?.as_f64()).collect())
    }

    /// Milliseconds of a decoding step.
    pub(super) fn decode(&self, peer: Peer, shape: (usize, usize)) -> Option<f64> {
        self.of_run(peer, shape, "/decode/milliseconds_per_step/median")
    }

    /// Milliseconds of a prompt.
    pub(super) fn prefill(&self, peer: Peer, shape: (usize, usize)) -> Option<f64> {
        self.of_run(peer, shape, "/prefill/milliseconds/median")
    }

    /// What the peer calls itself, with versions.
    pub(super) fn runtime(&self, peer: Peer) -> Option<&'a str> {
        self.of(peer).next()?["runtime"].as_str()
    }

    /// The machine as this project measured it, the best of all rounds: whatever disturbs makes slower.
    pub(super) fn machine(&self) -> Option<Machine<'a>> {
        let machines =
            || Peer::ALL.into_iter().flat_map(|peer| self.of(peer)).filter_map(|r| r.get("machine"));
        let best = |field: &str| machines().filter_map(|machine| machine[field].as_f64()).fold(0.0, f64::max);
        Some(Machine {
            processor: machines().next()?["processor"].as_str()?,
            memory_bytes: best("memory_bytes"),
            read_bytes_per_second: best("read_bytes_per_second"),
            operations_per_second: best("operations_per_second"),
        })
    }
}

pub(super) struct Machine<'a> {
    pub(super) processor: &'a str,
    pub(super) memory_bytes: f64,
    pub(super) read_bytes_per_second: f64,
    pub(super) operations_per_second: f64,
}

/// `None` if there are no values.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Two rounds of two peers.
    pub(crate) fn raw() -> Value {
        let run = |batch: usize, prompt: usize, milliseconds: f64| {
            json!({
                "batch": batch, "prompt_tokens": prompt,
                "prefill": { "milliseconds": { "median": milliseconds * 10.0 } },
                "decode": {
                    "milliseconds_per_step": { "median": milliseconds },
                    "runtime_overhead": 0.01, "share_of_read_bandwidth": 0.4,
                },
            })
        };
        let machine = json!({
            "processor": "a processor", "memory_bytes": 8e9, "read_bytes_per_second": 1e10,
            "operations_per_second": 1e11,
        });
        let round = |scale: f64| {
            let q4 = [run(1, 128, scale), run(1, 512, scale), run(8, 128, 4.0 * scale)];
            let q4 = [&q4[..], &[run(1, 64, scale), run(1, 2048, 2.0 * scale)]].concat();
            let bf16 = [run(1, 128, 3.0 * scale), run(1, 512, 3.0 * scale), run(8, 128, 9.0 * scale)];
            json!({
                "jetmoe-q4": {
                    "runtime": "ort 1.32.0", "load_seconds": 1.0, "data_bytes": 500_000_000_u64, "runs": q4,
                    "machine": machine,
                },
                "transformers-bf16": { "runtime": "transformers 5", "load_seconds": 4.0, "runs": bf16 },
            })
        };
        json!({
            "command": "cargo xtask bench", "checkpoint_bytes": 2_000_000_000_u64,
            "rounds": [round(1.0), round(2.0)],
        })
    }

    #[test]
    fn a_number_is_the_median_of_its_rounds() {
        let raw = raw();
        let rounds = Rounds::new(&raw);
        assert_eq!(rounds.decode(Peer::JetmoeQ4, (1, 128)), Some(1.5));
        assert_eq!(rounds.prefill(Peer::TransformersBf16, (8, 128)), Some(135.0));
        assert_eq!(rounds.number(Peer::JetmoeQ4, "/load_seconds"), Some(1.0));
    }

    #[test]
    fn who_was_not_measured_has_no_number() {
        let raw = raw();
        assert_eq!(Rounds::new(&raw).decode(Peer::Openvino, (1, 128)), None);
        assert_eq!(Rounds::new(&raw).runtime(Peer::Openvino), None);
    }
}
