use jetmoe_checkpoint::ModelConfig;
use serde_json::{Value, json};

use super::*;

/// Expected numbers carry 13 digits.
const DIGITS: f64 = 1e-12;
/// Two roundings to float32.
const FLOAT32: f32 = 2.0 * f32::EPSILON;

fn parameters(rope: Value) -> RopeParameters {
    let config = json!({"model_type": "jetmoe", "max_position_embeddings": 16384, "rope_parameters": rope});
    ModelConfig::from_json(&config).unwrap().rope
}

/// `expected`: what transformers' own functions give, run in float64.
#[track_caller]
fn assert_frequencies(rope: Value, expected: &[f64]) {
    let found = inverse_frequencies(&parameters(rope), 2 * expected.len());
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= DIGITS * expected, "{found} is not {expected}");
    }
}

#[track_caller]
fn assert_magnitude(rope: Value, expected: f64) {
    let magnitude = Rotary::new(&parameters(rope), 16).unwrap().magnitude;
    assert!((magnitude - expected).abs() <= DIGITS, "{magnitude} is not {expected}");
}

#[test]
fn default_frequencies_are_powers_of_theta() {
    assert_frequencies(json!({"rope_type": "default", "rope_theta": 10000.0}), &[1.0, 0.1, 0.01, 0.001]);
    assert_magnitude(json!({"rope_type": "default", "rope_theta": 10000.0}), 1.0);
}

#[test]
fn linear_scaling_divides_every_frequency() {
    let rope = json!({"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5});
    assert_frequencies(rope.clone(), &[0.4, 0.04, 0.004, 0.0004]);
    assert_magnitude(rope, 1.0);
}

#[test]
fn yarn_keeps_high_frequencies_divides_low_ones_and_ramps_between_them() {
    assert_frequencies(
        json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
               "original_max_position_embeddings": 4096}),
        &[
            1.0,
            3.162277660168e-01,
            1.0e-01,
            2.569350598887e-02,
            6.25e-03,
            1.383496476324e-03,
            2.5e-04,
            7.905694150421e-05,
        ],
    );
}

#[test]
fn yarn_without_truncate_ramps_between_fractions_of_a_channel() {
    assert_frequencies(
        json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
               "original_max_position_embeddings": 4096, "truncate": false}),
        &[
            1.0,
            3.162277660168e-01,
            1.0e-01,
            2.861360881199e-02,
            6.556971521129e-03,
            1.285632030727e-03,
            2.5e-04,
            7.905694150421e-05,
        ],
    );
}

#[test]
fn yarn_takes_its_bounds_from_beta_fast_and_beta_slow() {
    assert_frequencies(
        json!({"rope_type": "yarn", "rope_theta": 50000.0, "factor": 8.0,
               "original_max_position_embeddings": 2048, "beta_fast": 16.0, "beta_slow": 2.0}),
        &[
            1.0,
            2.586001363063e-01,
            6.687403049764e-02,
            9.727668788649e-03,
            5.590169943749e-04,
            1.445618709429e-04,
            3.738371953053e-05,
            9.667434966232e-06,
        ],
    );
}

#[test]
fn yarn_bounds_stay_within_the_channels() {
    // the lower bound would be negative
    assert_frequencies(
        json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 4}),
        &[
            1.0,
            7.905694150421e-02,
            2.5e-02,
            7.905694150421e-03,
            2.5e-03,
            7.905694150421e-04,
            2.5e-04,
            7.905694150421e-05,
        ],
    );
    // the upper bound would be 23 of 16 channels
    assert_frequencies(
        json!({"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0,
               "original_max_position_embeddings": 4096, "beta_fast": 200.0}),
        &[
            1.0,
            7.498942093325e-01,
            5.623413251903e-01,
            4.216965034286e-01,
            3.162277660168e-01,
            2.209689134821e-01,
            1.535786763215e-01,
            1.060755684675e-01,
        ],
    );
}

#[test]
fn a_yarn_ramp_without_length_is_a_step() {
    assert_frequencies(
        json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
               "original_max_position_embeddings": 4096, "beta_fast": 2.0, "beta_slow": 2.0, "truncate": false}),
        &[
            1.0,
            3.162277660168e-01,
            1.0e-01,
            3.162277660168e-02,
            1.0e-02,
            3.162277660168e-03,
            2.5e-04,
            7.905694150421e-05,
        ],
    );
}

#[test]
fn yarn_magnitude_comes_from_attention_factor_else_both_mscales_else_the_factor() {
    let rope = |more: Value| {
        let mut rope = json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0,
                              "original_max_position_embeddings": 4096});
        for (key, value) in more.as_object().unwrap() {
            rope[key] = value.clone();
        }
        rope
    };
    assert_magnitude(rope(json!({})), 1.3688879454113936);
    assert_magnitude(rope(json!({"mscale": 0.5})), 1.3688879454113936);
    assert_magnitude(rope(json!({"mscale": 1.0, "mscale_all_dim": 0.8})), 1.0569662567531275);
    let all = json!({"mscale": 1.0, "mscale_all_dim": 0.8, "attention_factor": 1.25});
    assert_magnitude(rope(all), 1.25);
    assert_magnitude(rope(json!({"factor": 0.5})), 1.0);
}

#[test]
fn llama3_keeps_short_waves_stretches_long_ones_and_blends_between_them() {
    assert_frequencies(
        json!({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
        &[
            1.0,
            1.939227447487e-01,
            3.760603093086e-02,
            7.292664737217e-03,
            5.248461609930e-04,
            3.428102195953e-05,
            6.647869871181e-06,
            1.289173172152e-06,
        ],
    );
    assert_frequencies(
        json!({"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
        &[
            1.0,
            9.583998588296e-02,
            1.25e-02,
            3.952847075210e-03,
            1.25e-03,
            3.952847075210e-04,
            1.25e-04,
            3.952847075210e-05,
        ],
    );
}

#[test]
fn channel_i_turns_with_channel_i_plus_half() {
    let rotary = Rotary::new(&parameters(json!({"rope_type": "default", "rope_theta": 10000.0})), 4).unwrap();
    let position_ids = Tensor::new(&[[0_i64, 100]], &Device::Cpu).unwrap();
    let head = [1.0_f32, 2.0, 3.0, 4.0];
    let x = Tensor::new(&[[[head], [head]]], &Device::Cpu).unwrap(); // [1, 2, 1, 4]
    let rotated = rotary.at(&position_ids).unwrap().apply(&x).unwrap();
    let rotated = rotated.reshape((2, 4)).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(rotated[0], head, "position 0 stays");
    // channels 0 and 2 turn by 100 radians, channels 1 and 3 by one
    let turn =
        |x: f32, y: f32, angle: f32| (x * angle.cos() - y * angle.sin(), y * angle.cos() + x * angle.sin());
    let ((first, third), (second, fourth)) = (turn(1.0, 3.0, 100.0), turn(2.0, 4.0, 1.0));
    for (found, expected) in rotated[1].iter().zip([first, second, third, fourth]) {
        assert!((found - expected).abs() <= FLOAT32 * 5.0, "{found} is not {expected}");
    }
}
