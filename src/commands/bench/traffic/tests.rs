use jetmoe_artifact::{Precision, Scheme};
use jetmoe_checkpoint::jetmoe_8b_config;
use serde_json::json;

use super::*;

fn record(precision: &str) -> GraphRecord {
    let file = json!({ "path": "x", "size": 0, "sha256": "0".repeat(64) });
    let record = json!({
        "task": "causal-lm", "precision": precision, "profile": "portable", "opset": 23,
        "optional_outputs": [], "graph": file, "data": file, "verification": [],
    });
    serde_json::from_value(record).unwrap()
}

fn jetmoe_8b() -> ModelConfig {
    ModelConfig::from_json(&jetmoe_8b_config()).unwrap()
}

const ONE_TOKEN: Step = Step { batch: 1, new_tokens: 1, past_tokens: 0 };

#[test]
fn one_token_reaches_the_experts_it_chooses_and_many_reach_all() {
    assert_eq!(expected_experts(8, 2, 1), 2.0);
    assert_eq!(expected_experts(8, 2, 2), 3.5);
    assert!((expected_experts(8, 2, 1000) - 8.0).abs() < 1e-9);
}

#[test]
fn a_token_of_jetmoe_8b_reads_2_3_billion_weights() {
    let (config, record) = (jetmoe_8b(), record("f32"));
    let traffic = Traffic::new(&config, &record);
    let weights =
        24_u64 * (2 * 2048 * 2048 + 2 * 8 * 2048 + 2 * (2 * 2048 * 2048 + 3 * 5632 * 2048)) + 32000 * 2048;
    assert_eq!(traffic.weight_bytes(ONE_TOKEN), 4.0 * weights as f64);
    assert_eq!(weights, 2_331_246_592);
}

#[test]
fn four_bits_with_a_scale_per_32_take_five_and_the_head_nine() {
    let scheme = |part| WeightPlan::default().scheme(Precision::Q4, part, None);
    assert_eq!(scheme(ModelPart::Mlp).bytes_per_weight(), 5.0 / 8.0);
    assert_eq!(scheme(ModelPart::LmHead).bytes_per_weight(), 9.0 / 8.0);
    let with_zero_points = Scheme { zero_points: true, ..scheme(ModelPart::Mlp) };
    assert_eq!(with_zero_points.bytes_per_weight(), 5.0 / 8.0 + 1.0 / 64.0);
}

#[test]
fn scales_of_a_native_graph_take_two_bytes() {
    let config = jetmoe_8b();
    let [portable, native] = [Profile::Portable, Profile::Native].map(|profile| {
        let record = GraphRecord { profile, ..record("q4") };
        Traffic::new(&config, &record).weight_bytes(ONE_TOKEN)
    });
    let scales = (24.0 * (2.0 * 2048.0 * 2048.0 + 2.0 * (2.0 * 2048.0 * 2048.0 + 3.0 * 5632.0 * 2048.0))
        + 32000.0 * 2048.0)
        / 32.0;
    assert_eq!(portable - native, 2.0 * scales);
}

#[test]
fn the_cache_is_read_for_every_token_before() {
    let (config, record) = (jetmoe_8b(), record("f32"));
    let step = Step { batch: 2, new_tokens: 1, past_tokens: 10 };
    let bytes = Traffic::new(&config, &record).cache_bytes(step);
    assert_eq!(bytes, (2 * 10 * 24 * 2 * 2048 * 4) as f64);
}

#[test]
fn a_prompt_attends_to_half_of_itself() {
    let (config, record) = (jetmoe_8b(), record("f32"));
    let traffic = Traffic::new(&config, &record);
    let one = traffic.operations(ONE_TOKEN);
    let three = traffic.operations(Step { new_tokens: 3, ..ONE_TOKEN });
    let later: f64 = (0..3).map(|past_tokens| traffic.operations(Step { past_tokens, ..ONE_TOKEN })).sum();
    assert!((three - later).abs() < one * 1e-9, "{three} and {later}");
}
