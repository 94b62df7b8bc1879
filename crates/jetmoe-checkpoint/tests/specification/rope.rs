use jetmoe_checkpoint::{ModelConfig, RopeParameters, RopeScaling};
use serde_json::{Value, json};

use crate::fixtures::tiny;

/// Reads the rotary embedding of a model of 128 positions with these keys.
fn read(keys: Value) -> Result<RopeParameters, Vec<String>> {
    let Value::Object(keys) = keys else { unreachable!() };
    let mut config = tiny().with("max_position_embeddings", json!(128)).config;
    config.extend(keys);
    match ModelConfig::from_json(&Value::Object(config)) {
        Ok(config) => Ok(config.rope),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

fn parameters(parameters: Value) -> Result<RopeParameters, Vec<String>> {
    read(json!({ "rope_parameters": parameters }))
}

fn linear(theta: f64, factor: f64) -> RopeParameters {
    RopeParameters { theta, scaling: RopeScaling::Linear { factor } }
}

#[test]
fn the_base_stands_in_rope_parameters_or_at_the_top_level() {
    let expected = RopeParameters { theta: 5e5, scaling: RopeScaling::Default };
    assert_eq!(parameters(json!({ "rope_type": "default", "rope_theta": 5e5 })), Ok(expected.clone()));
    assert_eq!(read(json!({ "rope_theta": 500_000 })), Ok(expected.clone()));
    assert_eq!(
        read(json!({ "rope_theta": 5e5, "rope_parameters": null, "rope_scaling": null })),
        Ok(expected.clone())
    );
    assert_eq!(read(json!({ "rope_theta": 5e5, "rope_parameters": {} })), Ok(expected));
}

#[test]
fn older_files_scale_by_rope_scaling() {
    let scaled = json!({ "rope_theta": 5e5, "rope_scaling": { "type": "linear", "factor": 2 } });
    assert_eq!(read(scaled), Ok(linear(5e5, 2.0)));
}

#[test]
fn both_ways_to_write_it_may_stand_side_by_side_where_they_agree() {
    let both = json!({
        "rope_theta": 5e5,
        "rope_scaling": { "type": "linear", "factor": 2 },
        "rope_parameters": { "rope_type": "linear", "factor": 2.0, "rope_theta": 5e5 },
    });
    assert_eq!(read(both), Ok(linear(5e5, 2.0)));
}

#[test]
fn two_ways_that_disagree_are_refused() {
    let scaling = json!({
        "rope_scaling": { "type": "linear", "factor": 2 },
        "rope_parameters": { "rope_type": "default" },
    });
    assert_eq!(
        read(scaling),
        Err(vec!["rope_scaling: contradicts rope_parameters; keep one of them".to_owned()])
    );
    let theta = json!({ "rope_theta": 1e4, "rope_parameters": { "rope_theta": 5e5 } });
    assert_eq!(
        read(theta),
        Err(vec![
            "rope_parameters.rope_theta: is 500000, but the top level says 10000; keep one of them"
                .to_owned()
        ])
    );
}

#[test]
fn a_type_that_jetmoe_never_had_is_refused_by_name() {
    for kind in ["dynamic", "longrope", "proportional", "mrope", ""] {
        assert_eq!(
            parameters(json!({ "rope_type": kind, "factor": 2 })),
            Err(vec![format!(
                "rope_parameters.rope_type: {kind:?} is not supported; known are default, linear, yarn, llama3"
            )])
        );
    }
}

#[test]
fn a_problem_names_the_key_that_the_file_has() {
    let problems = read(json!({ "rope_scaling": { "type": "dynamic", "factor": 2 } })).unwrap_err();
    assert!(problems[0].starts_with("rope_scaling.type: \"dynamic\" is not supported"), "{problems:?}");
}

#[test]
fn linear_needs_its_factor() {
    assert_eq!(
        parameters(json!({ "rope_type": "linear" })),
        Err(vec!["rope_parameters.factor: is missing; this rope_type requires it".to_owned()])
    );
}

fn yarn(extra: Value) -> RopeScaling {
    let Value::Object(mut keys) = extra else { unreachable!() };
    keys.insert("rope_type".to_owned(), json!("yarn"));
    keys.entry("factor").or_insert(json!(4));
    parameters(Value::Object(keys)).unwrap().scaling
}

/// 0.1 · scale · ln 4 + 1
fn magnitude(scale: f64) -> f64 {
    0.1 * scale * 4_f64.ln() + 1.0
}

#[test]
fn yarn_takes_the_defaults_of_transformers() {
    assert_eq!(
        yarn(json!({ "original_max_position_embeddings": 32 })),
        RopeScaling::Yarn {
            factor: 4.0,
            original_max_position_embeddings: 32,
            attention_factor: magnitude(1.0),
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
        }
    );
}

#[test]
fn yarn_knows_every_key() {
    let keys = json!({
        "original_max_position_embeddings": 16,
        "attention_factor": 1.5,
        "beta_fast": 8,
        "beta_slow": 2,
        "truncate": false,
    });
    assert_eq!(
        yarn(keys),
        RopeScaling::Yarn {
            factor: 4.0,
            original_max_position_embeddings: 16,
            attention_factor: 1.5,
            beta_fast: 8.0,
            beta_slow: 2.0,
            truncate: false,
        }
    );
}

#[test]
fn yarn_without_a_trained_length_takes_the_longest() {
    let RopeScaling::Yarn { original_max_position_embeddings, .. } = yarn(json!({})) else { unreachable!() };
    assert_eq!(original_max_position_embeddings, 128);
    let top_level = json!({
        "original_max_position_embeddings": 64,
        "rope_parameters": { "rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 32 },
    });
    let RopeScaling::Yarn { original_max_position_embeddings, .. } = read(top_level).unwrap().scaling else {
        unreachable!()
    };
    assert_eq!(original_max_position_embeddings, 64, "the top level comes first");
}

#[test]
fn the_attention_factor_of_yarn_follows_from_the_two_mscales() {
    let factor = |keys| match yarn(keys) {
        RopeScaling::Yarn { attention_factor, .. } => attention_factor,
        _ => unreachable!(),
    };
    assert_eq!(factor(json!({ "mscale": 1.0, "mscale_all_dim": 0.707 })), magnitude(1.0) / magnitude(0.707));
    assert_eq!(factor(json!({ "mscale": 0.5 })), magnitude(1.0), "one of them alone does nothing");
    assert_eq!(factor(json!({ "mscale": 0.5, "mscale_all_dim": 0 })), magnitude(1.0));
    assert_eq!(factor(json!({ "mscale": 1, "mscale_all_dim": 1, "attention_factor": 2 })), 2.0);
    assert_eq!(factor(json!({ "factor": 0.5 })), 1.0, "nothing is scaled up");
}

#[test]
fn a_null_factor_of_yarn_is_the_ratio_of_the_lengths_and_a_missing_one_a_problem() {
    let RopeScaling::Yarn { factor, .. } =
        yarn(json!({ "factor": null, "original_max_position_embeddings": 32 }))
    else {
        unreachable!()
    };
    assert_eq!(factor, 4.0);
    assert_eq!(
        parameters(json!({ "rope_type": "yarn", "original_max_position_embeddings": 32 })),
        Err(vec!["rope_parameters.factor: is missing; this rope_type requires it".to_owned()])
    );
}

#[test]
fn yarn_with_bounds_in_the_wrong_order_is_refused() {
    let keys = json!({ "rope_type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 4 });
    assert_eq!(
        parameters(keys),
        Err(vec!["rope_parameters.beta_fast: is 1, below beta_slow, which is 4".to_owned()])
    );
    let flat = json!({ "rope_type": "yarn", "factor": 2, "rope_theta": 1 });
    assert_eq!(
        parameters(flat),
        Err(vec!["rope_parameters.rope_theta: is 1, expected more than 1 for yarn".to_owned()])
    );
}

#[test]
fn llama3_reads_its_four_keys() {
    let keys = json!({
        "rope_type": "llama3",
        "factor": 8,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 32,
    });
    assert_eq!(
        parameters(keys).unwrap().scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32,
        }
    );
}

#[test]
fn llama3_names_every_missing_key() {
    let problems = parameters(json!({ "rope_type": "llama3" })).unwrap_err();
    for key in ["factor", "low_freq_factor", "high_freq_factor"] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(&format!("rope_parameters.{key}: is missing")))
        );
    }
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn llama3_with_bands_in_the_wrong_order_is_refused() {
    let keys = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4 });
    assert_eq!(
        parameters(keys),
        Err(vec![
            "rope_parameters.high_freq_factor: is 4, expected more than low_freq_factor (4)".to_owned()
        ])
    );
}

#[test]
fn a_partly_rotated_head_matters_only_where_transformers_looks() {
    assert!(read(json!({ "partial_rotary_factor": 0.5 })).is_ok());
    assert!(parameters(json!({ "rope_type": "default", "partial_rotary_factor": 0.5 })).is_ok());
    assert_eq!(
        parameters(json!({ "rope_type": "linear", "factor": 2, "partial_rotary_factor": 0.5 })),
        Err(vec![
            "rope_parameters.partial_rotary_factor: is 0.5; JetMoE rotates whole heads, so 1.0".to_owned()
        ])
    );
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (key, value) in
        [("factor", json!("two")), ("factor", json!(0)), ("rope_theta", json!(-1)), ("rope_theta", json!([]))]
    {
        let mut keys = serde_json::Map::from_iter([
            ("rope_type".to_owned(), json!("linear")),
            ("factor".to_owned(), json!(2)),
        ]);
        keys.insert(key.to_owned(), value.clone());
        assert_eq!(
            parameters(Value::Object(keys)),
            Err(vec![format!("rope_parameters.{key}: is {value}, expected a number above 0")])
        );
    }
    assert_eq!(
        read(json!({ "rope_parameters": 3 })),
        Err(vec!["rope_parameters: is 3, expected an object".to_owned()])
    );
}
