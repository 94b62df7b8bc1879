use serde_json::{Value, json};

use super::*;

/// Two rounds of jetmoe and three baselines, one token and sixteen.
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
            // faster than both, but no client that a user would run instead
            "candle": { "runs": [run(1, 1.8 * scale, "candle"), run(16, 10.8 * scale, "")] },
        })
    };
    json!({
        "command": "cargo xtask bench --kernels", "processor": "a processor",
        "rounds": [round(1.0), round(2.0)],
    })
}

#[test]
fn jetmoe_is_compared_with_the_fastest_client_at_each_number_of_tokens() {
    let raw = raw();
    let rounds = Rounds { raw: &raw };
    assert_eq!(rounds.fastest_client(1), Some((BenchTarget::OnnxRuntime, 3.0)));
    assert_eq!(rounds.fastest_client(16), Some((BenchTarget::Openvino, 27.0)));
    assert_eq!(rounds.ratio(1), Some(0.75));
    assert_eq!(rounds.ratio(512), None);
    assert_eq!(rounds.candle_ratio(16).map(|multiple| (multiple * 1e6).round()), Some(1.2e6));
}

#[test]
fn a_limit_is_the_best_of_the_rounds() {
    let raw = raw();
    assert_eq!(Rounds { raw: &raw }.limit("read_bytes_per_second"), Some(60e9));
}

#[test]
fn a_point_has_operations_per_byte_and_second() {
    let raw = raw();
    let point = Rounds { raw: &raw }.point(BenchTarget::Jetmoe, 16).unwrap();
    assert_eq!(point.operations_per_byte, 56.0);
    assert!((point.operations_per_second - 2.24e9 / 13.5e-3).abs() < 1.0);
}
