use serde_json::json;

use super::*;

/// Two rounds of two targets.
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
    let rounds = Rounds { raw: &raw };
    assert_eq!(rounds.decode(BenchTarget::JetmoeQ4, (1, 128)), Some(1.5));
    assert_eq!(rounds.prefill(BenchTarget::TransformersBf16, (8, 128)), Some(135.0));
    assert_eq!(rounds.load_seconds(BenchTarget::JetmoeQ4), Some(1.0));
}

#[test]
fn a_target_that_was_not_measured_has_no_number() {
    let raw = raw();
    assert_eq!(Rounds { raw: &raw }.decode(BenchTarget::Openvino, (1, 128)), None);
    assert_eq!(Rounds { raw: &raw }.runtime(BenchTarget::Openvino), None);
}
