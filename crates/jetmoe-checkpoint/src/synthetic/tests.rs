use super::*;
use crate::Checkpoint;

fn config() -> Value {
    json!({
        "model_type": "jetmoe", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "kv_channels": 4, "intermediate_size": 10, "tie_word_embeddings": false,
    })
}

fn written(options: &SyntheticOptions) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    write_synthetic(&config(), folder.path(), options, &mut |_| ()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn all_values(checkpoint: &Checkpoint) -> Vec<(String, Vec<f32>)> {
    let tensors = checkpoint.tensors();
    tensors.names().map(|name| (name.to_owned(), tensors.get(name).unwrap().to_f32())).collect()
}

#[test]
fn a_synthetic_checkpoint_is_a_checkpoint() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let (_folder, checkpoint) = written(&SyntheticOptions { dtype, ..SyntheticOptions::default() });
        let weight = checkpoint.tensors().get(names::LM_HEAD).unwrap();
        assert_eq!((weight.dtype, weight.shape), (dtype, &[50, 24][..]));
    }
}

#[test]
fn the_same_seed_gives_the_same_weights_however_they_are_cut() {
    let options = SyntheticOptions { seed: 7, ..SyntheticOptions::default() };
    let (single, whole) = written(&options);
    let (shards, cut) = written(&SyntheticOptions { shard_bytes: 3000, ..options });
    assert!(single.path().join(names::WEIGHTS).is_file());
    assert!(shards.path().join(names::WEIGHTS_INDEX).is_file());
    assert_eq!(all_values(&whole), all_values(&cut));
    assert_eq!(whole.digest(&|_| ()).unwrap(), cut.digest(&|_| ()).unwrap());
}

#[test]
fn another_seed_gives_other_weights_and_no_two_tensors_are_alike() {
    let (_first, first) = written(&SyntheticOptions { seed: 1, ..SyntheticOptions::default() });
    let (_second, second) = written(&SyntheticOptions { seed: 2, ..SyntheticOptions::default() });
    for ((name, left), (_, right)) in all_values(&first).iter().zip(&all_values(&second)) {
        assert_ne!(left, right, "{name}");
    }
    let (table, head) = (first.tensors().get(names::EMBEDDING), first.tensors().get(names::LM_HEAD));
    assert_ne!(table.unwrap().to_f32(), head.unwrap().to_f32());
}

#[test]
fn weights_have_the_scale_they_should_have() {
    let values: Vec<f64> =
        (0..200_000).map(|index| f64::from(normal(random_stream(3, "x"), index))).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    assert!(mean.abs() < 0.01, "{mean}");
    assert!((variance - 1.0).abs() < 0.02, "{variance}");
}

#[test]
fn a_configuration_without_a_model_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let config = json!({ "model_type": "jetmoe", "num_experts_per_tok": 9 });
    let error = write_synthetic(&config, &target, &SyntheticOptions::default(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
    assert!(!target.exists());
}

#[test]
fn jetmoe_8b_has_its_published_size() {
    let config = ModelConfig::from_json(&jetmoe_8b_config()).unwrap();
    assert_eq!(config.parameters(), 8_522_237_952);
}
